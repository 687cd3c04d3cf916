package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// superuser owns every embedded cluster. The cluster listens on the loopback address only and asks for no password.
const superuser = "orderflow"

// clusterName marks our servers in the process list, so that one which a killed parent left behind is known as ours.
const clusterName = "orderflow"

const (
	startPatience = 60 * time.Second // recovery after a crash can take a while
	stopPatience  = 20 * time.Second
)

// PostgresConfig says which binaries to run on which directory.
type PostgresConfig struct {
	BinDir   string            // holds initdb and postgres, see FindPostgres
	DataDir  string            // ours alone; the cluster lies in a sub-directory named by its major version
	Port     int               // 0 = a free one, remembered in DataDir
	Settings map[string]string // server settings over the ones of this package
	Fast     bool              // gives up durability (fsync and the like) for tests on throw-away directories
	Log      *slog.Logger
}

// Postgres is a running cluster. It ends with this process, whatever ends this process.
type Postgres struct {
	config  PostgresConfig
	account account
	data    string // the cluster's own directory
	port    int
	claim   *claim
	child   *child
}

// StartPostgres makes the cluster when there is none, starts it, and returns when it answers. A server that a killed
// parent left behind on the same directory is stopped first; a directory that another live process uses is refused
// with ErrInUse.
func StartPostgres(ctx context.Context, c PostgresConfig) (*Postgres, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return nil, fmt.Errorf("resolve data directory: %w", err)
	}
	c.DataDir = dir
	held, err := claimDirectory(dir)
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	p := &Postgres{config: c, claim: held}
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start postgres in %s: %w", dir, err), held.release())
	}
	return p, nil
}

func (p *Postgres) start(ctx context.Context) error {
	began := time.Now()
	if err := p.prepareCluster(ctx); err != nil {
		return err
	}
	crashed, err := p.clearPredecessor(ctx)
	if err != nil {
		return err
	}
	if p.port, err = rememberedPort(filepath.Join(p.config.DataDir, "port"), p.config.Port); err != nil {
		return err
	}
	if err := p.launch(ctx); err != nil {
		if !crashed || !errors.Is(err, errEndedAtStart) {
			return err
		}
		if err := p.relaunch(ctx, err); err != nil {
			return err
		}
	}
	p.config.Log.Info("started postgres", "port", p.port, "data_dir", p.data, "pid", p.Pid(),
		"took", time.Since(began).Round(time.Millisecond))
	return nil
}

// launch starts the server and returns when it answers.
func (p *Postgres) launch(ctx context.Context) error {
	var err error
	p.child, err = startChild(childConfig{
		Path:        filepath.Join(p.config.BinDir, "postgres"),
		Args:        p.arguments(),
		Env:         smallEnvironment(),
		Account:     p.account,
		Log:         p.logPath(),
		DeathSignal: syscall.SIGINT, // a fast, clean shutdown
	})
	if err != nil {
		return err
	}
	if err := awaitChild(ctx, p.child, p.ensureDatabase); err != nil {
		return errors.Join(err, p.child.stop(context.WithoutCancel(ctx), 5*time.Second, syscall.SIGQUIT))
	}
	return nil
}

// relaunch tries again while the backends of a killed server are still there: they end by themselves within moments,
// and until then the shared memory that they hold keeps a new server from starting.
func (p *Postgres) relaunch(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for errors.Is(err, errEndedAtStart) {
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
		err = p.launch(ctx)
	}
	return err
}

// URL is the address of the database "orderflow", for the superuser of the same name.
func (p *Postgres) URL() string { return p.DatabaseURL(superuser) }

// DatabaseURL is the address of a database of the cluster.
func (p *Postgres) DatabaseURL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(superuser),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Pid is the process id of the postmaster.
func (p *Postgres) Pid() int { return p.child.pid() }

// ClusterDir is the directory of the cluster itself. It lies outside the data directory where the user that runs
// Postgres cannot reach that one.
func (p *Postgres) ClusterDir() string { return p.data }

// Done is closed when the server has ended, be it asked to or not.
func (p *Postgres) Done() <-chan struct{} { return p.child.done }

// Stop ends the server cleanly and lets go of its directory. It takes at most the time ctx allows, and 40 seconds.
func (p *Postgres) Stop(ctx context.Context) error {
	// SIGINT breaks connections off and writes a checkpoint; SIGQUIT leaves the rest to recovery at the next start.
	err := p.child.stop(ctx, stopPatience, syscall.SIGINT, syscall.SIGQUIT)
	if err := errors.Join(err, p.claim.release()); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	return nil
}

// Kill is kill -9 of the server, for tests of crashes. Its backends end by themselves when they see it gone.
func (p *Postgres) Kill() error {
	if err := errors.Join(p.child.kill(), p.claim.release()); err != nil {
		return fmt.Errorf("kill postgres: %w", err)
	}
	return nil
}

func (p *Postgres) logPath() string { return filepath.Join(p.config.DataDir, "postgres.log") }

func (p *Postgres) arguments() []string {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(p.port),
		"unix_socket_directories": p.socketDirectory(),
		"cluster_name":            clusterName,
		"wal_level":               "logical",
		"max_wal_senders":         "16",
		"max_replication_slots":   "16",
		"max_connections":         "300",
		"shared_buffers":          "256MB",
		"max_wal_size":            "2GB",
		"wal_sender_timeout":      "5s",
		"timezone":                "UTC",
		"jit":                     "off", // every query here is short
		"log_min_messages":        "warning",
		"log_checkpoints":         "off",
		"log_line_prefix":         "%m [%p] %a ",
	}
	if p.config.Fast {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
		settings["synchronous_commit"] = "off"
		settings["shared_buffers"] = "64MB"
	}
	for name, value := range p.config.Settings {
		settings[name] = value
	}
	args := []string{"-D", p.data}
	for _, name := range sortedKeys(settings) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// socketDirectory is empty, which means no socket, where the socket's path would not fit into a socket address.
func (p *Postgres) socketDirectory() string {
	const longest = 103 // macOS has 104 bytes with the closing zero, Linux 108
	if len(filepath.Join(p.data, ".s.PGSQL."+strconv.Itoa(p.port))) > longest {
		return ""
	}
	return p.data
}

// ensureDatabase makes the product's database, which also shows that the server answers.
func (p *Postgres) ensureDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.DatabaseURL("postgres"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", superuser).Scan(&there); err != nil {
		return fmt.Errorf("look for database %s: %w", superuser, err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{superuser}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", superuser, err)
	}
	return nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
