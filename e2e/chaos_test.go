package e2e

import (
	"syscall"
	"testing"
	"time"

	"orderflow/internal/testenv"
	"orderflow/outbox-relay"
)

// groups are those that need nothing outside the platform.
var groups = []string{"seller", "logistics", "loyalty"}

// load places orders until stop is called, and says how many there are.
func (p *plant) load() (stop func() int64) {
	quit, placed := make(chan struct{}), make(chan int64)
	go func() {
		const batch = 100
		n := 0
		for {
			select {
			case <-quit:
				placed <- int64(n)
				return
			default:
			}
			p.place(n, batch)
			n += batch
		}
	}()
	return func() int64 {
		close(quit)
		return <-placed
	}
}

// settle waits for a while of undisturbed work between two faults.
func settle(d time.Duration) { <-time.After(d) }

func TestKilledRelaysLoseAndRepeatNothing(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.serveOrders()
	p.start("consume", "seller", "logistics", "loyalty")
	relays := []*process{p.start("relay", "--lease-ttl=1s"), p.start("relay", "--lease-ttl=1s")}
	stop := p.load()
	for i := range 6 {
		settle(700 * time.Millisecond)
		relays[i%2].kill()
		relays[i%2] = p.start("relay", "--lease-ttl=1s")
	}
	n := stop()
	p.applied(n, groups...)
	p.published()
	p.verify()
}

func TestFrozenRelayThatWakesUpHarmsNothing(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.serveOrders()
	p.start("consume", "seller", "logistics", "loyalty")
	relays := []*process{p.start("relay", "--lease-ttl=1s"), p.start("relay", "--lease-ttl=1s")}
	stop := p.load()
	for i := range 4 {
		settle(400 * time.Millisecond)
		relays[i%2].signal(syscall.SIGSTOP)
		settle(1800 * time.Millisecond) // past its lease: if it led, the other leads now
		relays[i%2].signal(syscall.SIGCONT)
	}
	n := stop()
	p.applied(n, groups...)
	p.published()
	p.verify()
}

func TestKilledAndFrozenConsumersApplyEachEventOnce(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.serveOrders()
	p.start("relay")
	members := []*process{p.start("consume", "seller", "logistics", "loyalty"), p.start("consume", "seller", "logistics", "loyalty")}
	stop := p.load()
	for i := range 6 {
		settle(900 * time.Millisecond)
		if i%3 == 2 {
			members[i%2].signal(syscall.SIGSTOP)
			settle(3 * time.Second)
			members[i%2].signal(syscall.SIGCONT)
			continue
		}
		members[i%2].kill()
		members[i%2] = p.start("consume", "seller", "logistics", "loyalty")
	}
	n := stop()
	p.applied(n, groups...)
	p.published()
	p.verify()
}

func TestBrokerThatRestartsLosesNothing(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.serveOrders()
	p.start("relay")
	p.start("consume", "seller", "logistics", "loyalty")
	stop := p.load()
	for range 3 {
		settle(time.Second)
		p.broker.kill()
		settle(500 * time.Millisecond)
		p.broker.restart()
	}
	n := stop()
	p.applied(n, groups...)
	p.published()
	p.verify()
}

func TestOrdersAreTakenWhileKafkaAndRegistryAreDown(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.broker.kill()
	p.registry.Close()
	p.serveOrders()
	p.place(0, 500)
	p.start("relay") // finds neither broker nor registry, and waits
	settle(time.Second)

	p.broker.restart()
	p.restartRegistry()
	p.start("consume", "seller", "logistics", "loyalty")
	p.applied(500, groups...)
	p.published()
	p.verify()
}

func TestPlannedStopHandsOverAtOnce(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.serveOrders()
	first := p.start("relay", "--lease-ttl=30s")
	testenv.Wait(t, 30*time.Second, "a leader", func() bool {
		s, err := relay.ReadStatus(t.Context(), p.db, "orderflow")
		return err == nil && s.Leader != nil
	})
	p.start("relay", "--lease-ttl=30s")
	p.place(0, 100)
	first.stop()
	p.place(100, 100)
	p.published() // well before the first one's lease would have ended
	p.start("consume", "seller", "logistics", "loyalty")
	p.applied(200, groups...)
	p.verify()
}
