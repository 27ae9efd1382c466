// Command lockgate takes locks with the library werf/lockgate: of files, of a lock server, of Kubernetes objects. It
// can be that lock server, too.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/werf/lockgate"
	"github.com/werf/lockgate/pkg/distributed_locker"
	"github.com/werf/lockgate/pkg/distributed_locker/optimistic_locking_store"
	"github.com/werf/lockgate/pkg/file_locker"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"leasehold.test/peers/internal/job"
)

var (
	server = flag.String("server", "", "the Kubernetes API server, its URL")
	ca     = flag.String("ca", "", "a file with the certificate of its authority")
	shared = flag.Bool("shared", false, "take the lock together with others")
)

const usage = `lockgate [-shared] STORE LOCK JOB   (the token of Kubernetes: KUBERNETES_TOKEN)
lockgate [..] serve STORE

STORE: memory, file:DIR, http://HOST:PORT, kubernetes:[NAMESPACE]/[GROUP/VERSION/]RESOURCE/NAME
JOB:   ` + job.Usage + " | cycle TIMES | pass TIMES | renew LEASE TIMES | release LEASE TIMES"

func main() {
	flag.Parse()
	job.Main(run(flag.Args()))
}

func run(words []string) error {
	if len(words) == 2 && words[0] == "serve" {
		return serve(words[1])
	}
	if len(words) < 3 {
		return errors.New(usage)
	}
	locker, err := open(words[0])
	if err != nil {
		return err
	}
	if len(words) == 5 && (words[2] == "renew" || words[2] == "release") {
		return another(words[0], words[2], lockgate.LockHandle{LockName: words[1], UUID: words[3]}, words[4])
	}
	one := func() (job.Lock, error) { return &lock{locker: locker, name: words[1]}, nil }
	var times int
	if len(words) == 4 {
		fmt.Sscan(words[3], &times)
	}
	switch words[2] {
	case "cycle":
		return cycle(one, times)
	case "pass":
		return pass(one, times)
	}
	return job.Run(words[2:], one)
}

// serve says its port, and is a lock server until it is killed.
func serve(store string) error {
	backend, err := backend(store)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	job.Say(fmt.Sprint(listener.Addr().(*net.TCPAddr).Port))
	return http.Serve(listener, distributed_locker.NewHttpBackendHandler(backend))
}

func open(store string) (lockgate.Locker, error) {
	if dir, is := strings.CutPrefix(store, "file:"); is {
		return file_locker.NewFileLocker(dir)
	}
	backend, err := backend(store)
	if err != nil {
		return nil, err
	}
	return distributed_locker.NewDistributedLocker(backend), nil
}

func backend(store string) (distributed_locker.DistributedLockerBackend, error) {
	if strings.HasPrefix(store, "http:") {
		return distributed_locker.NewHttpBackend(store), nil
	}
	if store == "memory" {
		memory := optimistic_locking_store.NewInMemoryStore()
		return distributed_locker.NewOptimisticLockingStorageBasedBackend(memory), nil
	}
	object, is := strings.CutPrefix(store, "kubernetes:")
	parts := strings.Split(object, "/")
	if !is || len(parts) != 3 && len(parts) != 5 {
		return nil, errors.New(usage)
	}
	kind := schema.GroupVersionResource{Version: "v1", Resource: parts[len(parts)-2]}
	if len(parts) == 5 {
		kind.Group, kind.Version = parts[1], parts[2]
	}
	config := &rest.Config{
		Host:            *server,
		BearerToken:     os.Getenv("KUBERNETES_TOKEN"),
		TLSClientConfig: rest.TLSClientConfig{CAFile: *ca},
		// Without it the client would measure its own brake.
		QPS: -1,
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return distributed_locker.NewKubernetesLocker(client, kind, parts[len(parts)-1], parts[0]).Backend, nil
}

type lock struct {
	locker lockgate.Locker
	name   string
	handle lockgate.LockHandle
}

func (l *lock) Lock() error {
	_, handle, err := l.locker.Acquire(l.name, lockgate.AcquireOptions{Shared: *shared})
	l.handle = handle
	return err
}

func (l *lock) TryLock() (bool, error) {
	options := lockgate.AcquireOptions{Shared: *shared, NonBlocking: true}
	locked, handle, err := l.locker.Acquire(l.name, options)
	l.handle = handle
	return locked, err
}

func (l *lock) Unlock() error { return l.locker.Release(l.handle) }

// another goes on with a lease that somebody else took, or lets it go.
func another(store, what string, lease lockgate.LockHandle, times string) error {
	backend, err := backend(store)
	if err != nil {
		return err
	}
	do := backend.RenewLease
	if what == "release" {
		do = backend.Release
	}
	var count int
	fmt.Sscan(times, &count)
	for ; err == nil && count > 0; count-- {
		err = do(lease)
		if err == nil {
			job.Say(what)
		}
	}
	return err
}

// cycle says the nanoseconds of each lock and unlock.
func cycle(one func() (job.Lock, error), times int) error {
	for ; times > 0; times-- {
		l, err := one()
		if err != nil {
			return err
		}
		start := time.Now()
		if err := l.Lock(); err != nil {
			return err
		}
		if err := l.Unlock(); err != nil {
			return err
		}
		job.Say(fmt.Sprint(time.Since(start).Nanoseconds()))
	}
	return nil
}

// pass says the nanoseconds from each release to the grant of one who waits.
func pass(one func() (job.Lock, error), times int) error {
	for ; times > 0; times-- {
		first, err := one()
		if err != nil {
			return err
		}
		if err := first.Lock(); err != nil {
			return err
		}
		second, _ := one()
		done := make(chan error)
		var granted time.Time
		go func() {
			err := second.Lock()
			granted = time.Now()
			done <- err
		}()
		// Anywhere in the pause of who waits.
		time.Sleep(300*time.Millisecond + time.Duration(times*7919%2000)*time.Millisecond)
		if err := first.Unlock(); err != nil {
			return err
		}
		released := time.Now()
		if err := <-done; err != nil {
			return err
		}
		job.Say(fmt.Sprint(granted.Sub(released).Nanoseconds()))
		if err := second.Unlock(); err != nil {
			return err
		}
	}
	return nil
}
