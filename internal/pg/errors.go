package pg

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// Code returns the SQLSTATE of err, or "" when err is not a server's answer.
func Code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// Retryable reports whether the same work may succeed when it is tried again
// as it is: the server, the connection or a concurrent transaction stood in
// the way, not the data.
func Retryable(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	switch code := Code(err); {
	case code == "":
		return connectionLost(err)
	case code[:2] == "08", code[:2] == "53", code[:2] == "57":
		return true
	default:
		// serialization_failure, deadlock_detected, lock_not_available,
		// idle_in_transaction_session_timeout, transaction_timeout,
		// read_only_sql_transaction (a primary that was demoted)
		switch code {
		case "40001", "40P01", "55P03", "25P03", "25P04", "25006":
			return true
		}
		return false
	}
}

// DataError reports whether the server refused the data itself (SQLSTATE
// class 22 or 23): trying again cannot help, another row might pass.
func DataError(err error) bool {
	code := Code(err)
	return code != "" && (code[:2] == "22" || code[:2] == "23")
}

// Ambiguous reports whether a COMMIT that returned err may have happened: the
// connection broke, or the deadline passed, before the server's answer came.
func Ambiguous(err error) bool {
	if err == nil {
		return false
	}
	switch code := Code(err); {
	case code == "":
		return true
	case code[:2] == "08", code[:2] == "57":
		return true
	default:
		return false
	}
}

func connectionLost(err error) bool {
	var ne net.Error
	var ce *pgconn.ConnectError
	return errors.As(err, &ne) || errors.As(err, &ce) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || pgconn.SafeToRetry(err) ||
		err.Error() == "conn closed"
}
