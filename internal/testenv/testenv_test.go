package testenv_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"orderflow/internal/testenv"
)

func TestEachTestHasADatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	prepare := func(ctx context.Context, url string) error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		defer conn.Close(ctx)
		_, err = conn.Exec(ctx, "CREATE TABLE notes (text text); INSERT INTO notes VALUES ('from the template')")
		return err
	}
	for _, name := range []string{"first", "second"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			conn, err := pgx.Connect(ctx, testenv.Postgres(t, testenv.Template("notes", prepare)))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			if _, err := conn.Exec(ctx, "INSERT INTO notes VALUES ($1)", name); err != nil {
				t.Fatal(err)
			}
			var got int
			if err := conn.QueryRow(ctx, "SELECT count(*) FROM notes").Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got != 2 {
				t.Errorf("got %d notes, want the template's and our own", got)
			}
		})
	}
}

func TestEachTestHasABrokerAndARegistryOfItsOwn(t *testing.T) {
	t.Parallel()
	t.Log(testenv.Kafka(t), testenv.Registry(t))
}
