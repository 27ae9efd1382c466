// Command dlock sends what the library dlock sends, with its defaults: it cannot be had as a module.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"leasehold.test/peers/internal/job"
)

// The TTL of its sessions.
const ttl = "30s"

func main() {
	// 30 s there; an argument here so that a test can be short.
	retry := flag.Duration("retry", 30*time.Second, "the pause between two tries")
	flag.Parse()
	if flag.NArg() < 3 {
		job.Main(fmt.Errorf("dlock [-retry PAUSE] ADDRESS KEY %s", job.Usage))
	}
	client, err := api.NewClient(&api.Config{Address: flag.Arg(0)})
	if err != nil {
		job.Main(err)
	}
	job.Main(job.Run(flag.Args()[2:], func() (job.Lock, error) {
		return &lock{client: client, key: flag.Arg(1), retry: *retry}, nil
	}))
}

type lock struct {
	client  *api.Client
	key     string
	retry   time.Duration
	session string
	done    chan struct{}
}

// createSession makes a session that depends on the node and on every check of the agent.
func (l *lock) createSession() error {
	checks := []string{"serfHealth"}
	all, err := l.client.Agent().Checks()
	if err != nil {
		return err
	}
	for id := range all {
		checks = append(checks, id)
	}
	l.session, _, err = l.client.Session().Create(&api.SessionEntry{Name: l.key, TTL: ttl, Checks: checks}, nil)
	if err != nil {
		return err
	}
	l.done = make(chan struct{})
	go l.client.Session().RenewPeriodic(ttl, l.session, nil, l.done)
	return nil
}

// TryLock takes the lock by api.Lock, with the session and a value of its own.
func (l *lock) TryLock() (bool, error) {
	if l.session == "" {
		if err := l.createSession(); err != nil {
			return false, err
		}
	}
	value, err := json.Marshal(map[string]string{"lockAcquisitionTime": time.Now().Format(time.RFC3339)})
	if err != nil {
		return false, err
	}
	held, err := l.client.LockOpts(&api.LockOptions{
		Key: l.key, Value: value, Session: l.session, LockWaitTime: time.Second, LockTryOnce: true,
	})
	if err != nil {
		return false, err
	}
	lost, err := held.Lock(nil)
	return lost != nil, err
}

func (l *lock) Lock() error {
	for {
		locked, err := l.TryLock()
		if locked || err != nil {
			return err
		}
		time.Sleep(l.retry)
	}
}

// Unlock destroys the session, and does not release the key before: everybody waits for the lock-delay.
func (l *lock) Unlock() error {
	close(l.done)
	_, err := l.client.Session().Destroy(l.session, nil)
	l.session = ""
	return err
}
