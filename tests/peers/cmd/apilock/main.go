// Command apilock locks by HashiCorp's own api.Lock, with its defaults.
package main

import (
	"flag"
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/sys/unix"

	"leasehold.test/peers/internal/job"
)

func main() {
	flag.Parse()
	if flag.NArg() < 3 {
		job.Main(fmt.Errorf("apilock ADDRESS KEY %s | cycles ROUNDS TIMES | steps", job.Usage))
	}
	client, err := api.NewClient(&api.Config{Address: flag.Arg(0)})
	if err != nil {
		job.Main(err)
	}
	key, words := flag.Arg(1), flag.Args()[2:]
	switch {
	case words[0] == "cycles" && len(words) == 3:
		job.Main(cycles(client, key, words[1], words[2]))
	case words[0] == "steps":
		job.Main(steps(client, key))
	default:
		job.Main(job.Run(words, func() (job.Lock, error) { return &lock{client: client, key: key}, nil }))
	}
}

type lock struct {
	client *api.Client
	key    string
	held   *api.Lock
}

func (l *lock) take(once bool) (bool, error) {
	options := &api.LockOptions{Key: l.key, Value: []byte("apilock")}
	if once {
		options.LockTryOnce, options.LockWaitTime = true, time.Millisecond
	}
	held, err := l.client.LockOpts(options)
	if err != nil {
		return false, err
	}
	lost, err := held.Lock(nil)
	l.held = held
	return lost != nil, err
}

func (l *lock) Lock() error {
	_, err := l.take(false)
	return err
}

func (l *lock) TryLock() (bool, error) { return l.take(true) }

func (l *lock) Unlock() error { return l.held.Unlock() }

// cycles locks and unlocks so often for each line that it reads, and says the mean time in nanoseconds.
func cycles(client *api.Client, key, rounds, times string) error {
	round, err := strconv.Atoi(rounds)
	if err != nil {
		return err
	}
	each, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	held, err := client.LockKey(key)
	if err != nil {
		return err
	}
	job.Say("ready")
	for ; round > 0; round-- {
		var line string
		if _, err := fmt.Scanln(&line); err != nil {
			return err
		}
		start := time.Now()
		for range each {
			if _, err := held.Lock(nil); err != nil {
				return err
			}
			if err := held.Unlock(); err != nil {
				return err
			}
		}
		job.Say(strconv.FormatInt(time.Since(start).Nanoseconds()/int64(each), 10))
	}
	return nil
}

// steps takes the lock and lets it go as the lines say that it reads, and says when it had it and when it began to let
// it go, on a clock that is one for all processes.
func steps(client *api.Client, key string) error {
	held, err := client.LockKey(key)
	if err != nil {
		return err
	}
	job.Say("ready")
	for {
		var line string
		if _, err := fmt.Scanln(&line); err != nil {
			return nil
		}
		if line == "lock" {
			if _, err := held.Lock(nil); err != nil {
				return err
			}
			job.Say(now())
			continue
		}
		start := now()
		if err := held.Unlock(); err != nil {
			return err
		}
		job.Say(start)
	}
}

func now() string {
	var time unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &time)
	return strconv.FormatInt(time.Nano(), 10)
}
