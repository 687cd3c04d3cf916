// Package e2e holds the stories of the whole pipeline, told with real
// processes: the orderflow binary, Postgres, a broker and a registry, and
// kill -9, SIGSTOP and restarts in between.
package e2e
