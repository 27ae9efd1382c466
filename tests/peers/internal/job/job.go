// Package job is what a test has a peer do with its lock.
package job

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// Lock is one of a peer, taken once.
type Lock interface {
	// Lock waits as the peer does.
	Lock() error
	// TryLock asks once.
	TryLock() (bool, error)
	Unlock() error
}

// Say tells the test a line, with the mark that it looks for.
func Say(line string) { fmt.Println("@" + line) }

// Usage says what follows the arguments of a program.
const Usage = "count FILE TIMES | read FILE TIMES | hold | once"

// Run does what the words say, each time with a new lock.
func Run(words []string, lock func() (Lock, error)) error {
	do := map[string]func(string) error{"count": add, "read": read}
	switch {
	case len(words) == 3 && do[words[0]] != nil:
		times, err := strconv.Atoi(words[2])
		for ; err == nil && times > 0; times-- {
			err = locked(lock, func() error { return do[words[0]](words[1]) })
		}
		return err
	case len(words) == 1 && words[0] == "hold":
		return locked(lock, func() error {
			Say("held")
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		})
	case len(words) == 1 && words[0] == "once":
		return once(lock)
	}
	return fmt.Errorf("no such job: %q, it is one of: %s", words, Usage)
}

// locked does something while the lock is held.
func locked(lock func() (Lock, error), do func() error) error {
	l, err := lock()
	if err != nil {
		return err
	}
	if err := l.Lock(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return l.Unlock()
}

// once says whether the lock is free, and leaves it so.
func once(lock func() (Lock, error)) error {
	l, err := lock()
	if err != nil {
		return err
	}
	free, err := l.TryLock()
	if err != nil {
		return err
	}
	if !free {
		Say("busy")
		return nil
	}
	Say("free")
	return l.Unlock()
}

// add adds one to the number in a file. Cut and written: whoever reads meanwhile finds no number.
func add(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(string(text))
	if err != nil {
		return err
	}
	time.Sleep(3 * time.Millisecond) // long enough for whoever is not kept out
	return os.WriteFile(path, []byte(strconv.Itoa(number+1)), 0o600)
}

// read finds the same whole number in a file as long as it looks.
func read(path string) error {
	var first []byte
	for range 20 {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if _, err := strconv.Atoi(string(text)); err != nil {
			return err
		}
		if first == nil {
			first = text
		}
		if string(first) != string(text) {
			return fmt.Errorf("written beside a reader: %q, then %q", first, text)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// Main ends the program as the job ended.
func Main(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
