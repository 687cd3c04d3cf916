package orders

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"orderflow/internal/pg"
)

// lookupSQL reads what was answered under some keys.
const lookupSQL = `
SELECT k.client_id, k.key, k.fingerprint, k.order_id, k.version, k.status, k.response
FROM unnest($1::text[], $2::text[]) AS asked (client_id, key)
JOIN orders.idempotency_keys k USING (client_id, key)`

// stored is what the database keeps of a request that changed an order.
type stored struct {
	fingerprint []byte
	answer      answer
}

// lookup reads the stored requests of some keys. It must run after the claim
// that found a key taken, as a statement of its own: only then is the other
// transaction's commit visible.
func lookup(ctx context.Context, db pg.DB, keys []keyOf) (map[keyOf]stored, error) {
	clients, names := make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		clients[i], names[i] = k.client, k.key
	}
	rows, err := db.Query(ctx, lookupSQL, clients, names)
	if err != nil {
		return nil, fmt.Errorf("look up %d keys: %w", len(keys), err)
	}
	found := make(map[keyOf]stored, len(keys))
	var k keyOf
	var s stored
	_, err = pgx.ForEachRow(rows, []any{
		&k.client, &k.key, &s.fingerprint, &s.answer.orderID, &s.answer.version, &s.answer.status, &s.answer.body,
	}, func() error {
		found[k] = s
		s = stored{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up %d keys: %w", len(keys), err)
	}
	return found, nil
}

// replay judges a request whose key was stored before by what is stored.
func replay(found map[keyOf]stored, k keyOf, fingerprint []byte) (answer, *problem) {
	s, known := found[k]
	switch {
	case !known:
		// Its owner is not finished, or the row has expired between.
		return answer{}, problemOf(codeInProgress, "")
	case string(s.fingerprint) != string(fingerprint):
		return answer{}, problemOf(codeKeyReused, "")
	}
	s.answer.replayed = true
	return s.answer, nil
}

// resolve settles the entries of a batch that were left taken.
func resolve(ctx context.Context, db pg.DB, batch []*entry) {
	var keys []keyOf
	for _, e := range batch {
		if e.taken {
			keys = append(keys, e.keyOf)
		}
	}
	if len(keys) == 0 {
		return
	}
	found, err := lookup(ctx, db, keys)
	for _, e := range batch {
		if !e.taken {
			continue
		}
		e.taken = false
		if err != nil {
			e.problem = problemOf(codeUnavailable, "").because(err)
			continue
		}
		e.answer, e.problem = replay(found, e.keyOf, e.fingerprint[:])
		if e.answer.orderID == e.id {
			// Our own commit, whose outcome had been unknown.
			e.placed()
		}
	}
}
