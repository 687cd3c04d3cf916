package testenv

import (
	"context"
	"fmt"
	"os"
	"testing"

	"orderflow/internal/embedded"
)

// roleVariable makes a test binary play a part in a test instead of running tests.
const roleVariable = "ORDERFLOW_TEST_ROLE"

// Main runs the tests of a package that uses BrokerProcess: call it from TestMain. The broker of such a test is
// another process of the same test binary.
func Main(m *testing.M) {
	if os.Getenv(roleVariable) != "broker" {
		os.Exit(m.Run())
	}
	b, err := embedded.StartBroker(context.Background(), embedded.BrokerConfig{DataDir: os.Getenv("ORDERFLOW_TEST_DIR")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(b.Addrs()[0])
	select {} // until killed
}
