package importer

// Reason is a code from a bounded list: why an order was not placed, why a
// cancellation changed nothing, why a line was left out, what was mapped, what
// was seen. A test holds that every one of them is described.
type Reason string

// Why an order is not placed. Besides these, an order the API refused counts as
// RefusedPrefix and the API's own problem code.
const (
	Adjustment           Reason = "adjustment"            // UCI: invoice number A..., bad debt
	StockWriteOff        Reason = "stock_write_off"       // UCI: every quantity negative without being a cancellation
	NothingPriced        Reason = "nothing_priced"        // no line has a price above 0
	NoGoods              Reason = "no_goods"              // UCI: what is priced is carriage, fees, samples, manual entries only
	NoItems              Reason = "no_items"              // Olist: the order has no item
	UnknownCountry       Reason = "unknown_country"       // UCI: a country that is not in the table
	UnknownCustomer      Reason = "unknown_customer"      // Olist: the customer is not in the table
	UnknownInvoiceKind   Reason = "unknown_invoice_kind"  // UCI: an invoice number that is neither digits, C nor A
	ContradictoryInvoice Reason = "contradictory_invoice" // UCI: two customers or two countries in one invoice
	TooManyLines         Reason = "too_many_lines"        // more lines than the API takes
	Unreadable           Reason = "unreadable"            // a field that is no number, no time, or missing

	RefusedPrefix        = "refused:"
	RefusedOther  Reason = RefusedPrefix + "other" // beyond the sixteenth distinct code
)

// Why a cancellation changes nothing. Unreadable serves here too.
const (
	NoCustomer       Reason = "no_customer"         // UCI: it names no customer, so it can mean no sale
	NoEqualSale      Reason = "no_equal_sale"       // UCI: no earlier sale of the customer has these very lines
	SeveralEqual     Reason = "several_equal_sales" // UCI: more than one has
	AlreadyCancelled Reason = "already_cancelled"   // an earlier cancellation took that sale
	SaleNotPlaced    Reason = "sale_not_placed"     // the sale it means never became an order
	CancelRefused    Reason = "cancel_refused"      // the API does not cancel the order any more
)

// Why a line is left out of an order that is placed. Unreadable serves here
// too, for rows that belong to no order that can be told.
const (
	PriceNotPositive    Reason = "price_not_positive"
	QuantityNotPositive Reason = "quantity_not_positive"
	NotGoods            Reason = "not_goods" // UCI: fees, discounts, samples, manual entries
)

// What is mapped on the way to an order, in orders unless it says lines.
const (
	GuestCustomer    Reason = "guest_customer"    // UCI: no customer id, the invoice's own guest stands in
	CarriageLines    Reason = "carriage_lines"    // UCI: lines POST, DOT, C2 that became freight
	CountryMapped    Reason = "country_mapped"    // UCI: EIRE, RSA, Channel Islands, European Community, Unspecified
	DefaultsUsed     Reason = "defaults_used"     // UCI: seller, weight, size, region, payment from the constants
	DefaultParcel    Reason = "default_parcel"    // Olist: lines whose product has no weight or size
	PaymentsMerged   Reason = "payments_merged"   // Olist: the largest of several payments stands for all
	PaymentUndefined Reason = "payment_undefined" // Olist: not_defined, or no payment at all
)

// What was seen in the source as a whole, whatever became of the orders, and
// taken as it is. In orders or invoices unless it says lines.
const (
	DuplicateLines      Reason = "duplicate_lines"      // UCI: exact repeats of an earlier line of the invoice
	RepeatedCode        Reason = "repeated_code"        // UCI: invoices that name a stock code more than once
	FinePriceLines      Reason = "fine_price_lines"     // prices with three or more decimals
	LinesNoCustomer     Reason = "lines_no_customer"    // UCI
	LinesNotPriced      Reason = "lines_not_priced"     // UCI: price 0 or less
	SpansMinutes        Reason = "spans_minutes"        // UCI: invoices whose lines bear several times
	Interrupted         Reason = "interrupted"          // UCI: invoices with another invoice between their lines
	SeveralSellers      Reason = "several_sellers"      // Olist
	SeveralPayments     Reason = "several_payments"     // Olist
	ZeroPayments        Reason = "zero_payments"        // Olist: payments of 0.00
	PaymentDiffers      Reason = "payment_differs"      // Olist: items and freight differ from the payments by more than 0.05
	CarrierBeforeOK     Reason = "carrier_before_ok"    // Olist: handed to the carrier before approval
	DeliveredBefore     Reason = "delivered_before"     // Olist: delivered before the carrier had it
	DeliveredNoTime     Reason = "delivered_no_time"    // Olist
	CancelledShipped    Reason = "cancelled_shipped"    // Olist: cancelled after the hand-over
	CancelledUnapproved Reason = "cancelled_unapproved" // Olist: cancelled before approval
	UnknownStatus       Reason = "unknown_status"       // Olist: a status the set does not have
)
