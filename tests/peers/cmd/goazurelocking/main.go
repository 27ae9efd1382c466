// Command goazurelocking sends what the library lawrencegripper/goazurelocking sends, with the same pauses: it cannot
// be had as a module any more.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"

	"leasehold.test/peers/internal/azurite"
	"leasehold.test/peers/internal/job"
)

// What the library has as constants.
const (
	version   = "2016-05-31"
	container = "azlockcontainer"
	prefix    = "azlk-"
)

func main() {
	ttl := flag.Duration("ttl", 15*time.Second, "of the lease, 15 to 60 s")
	// A constant there, of the retries that it imports; an argument here so that a test can be short.
	pause := flag.Duration("pause", 500*time.Millisecond, "before the second try, about; each later one is longer by half")
	flag.Parse()
	if flag.NArg() < 3 {
		job.Main(fmt.Errorf("goazurelocking [-ttl TTL] [-pause PAUSE] ENDPOINT NAME %s", job.Usage))
	}
	endpoint, name := flag.Arg(0), flag.Arg(1)
	job.Main(job.Run(flag.Args()[2:], func() (job.Lock, error) { return newLock(endpoint, name, *ttl, *pause) }))
}

// lock is taken once, as there.
type lock struct {
	lease      *lease.BlobClient
	ttl, pause time.Duration
	done       chan struct{}
}

// newLock makes the container and puts an empty blob, over one that is there and that nobody holds.
func newLock(endpoint, name string, ttl, pause time.Duration) (*lock, error) {
	ctx := context.Background()
	client, err := azurite.Client(endpoint, version)
	if err != nil {
		return nil, err
	}
	_, err = client.CreateContainer(ctx, container, nil)
	if err != nil && !azurite.Is(err, bloberror.ContainerAlreadyExists) {
		return nil, err
	}
	_, err = client.UploadBuffer(ctx, container, prefix+name, nil, nil)
	if err != nil && !azurite.Is(err, bloberror.BlobAlreadyExists, bloberror.LeaseIDMissing) {
		return nil, err
	}
	blob := client.ServiceClient().NewContainerClient(container).NewBlobClient(prefix + name)
	lease, err := lease.NewBlobClient(blob, nil) // with an id of its own
	if err != nil {
		return nil, err
	}
	return &lock{lease: lease, ttl: ttl, pause: pause, done: make(chan struct{})}, nil
}

func (l *lock) acquire() error {
	_, err := l.lease.AcquireLease(context.Background(), int32(l.ttl.Seconds()), nil)
	if err == nil {
		go l.renew()
	}
	return err
}

// Lock tries again after any error, for ten times the TTL.
func (l *lock) Lock() error {
	end := time.Now().Add(10 * l.ttl)
	for pause := l.pause; ; pause = min(pause*3/2, time.Minute) {
		err := l.acquire()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(time.Duration((0.5 + rand.Float64()) * float64(pause)))
	}
}

// TryLock is its Lock without the behaviour that retries.
func (l *lock) TryLock() (bool, error) {
	err := l.acquire()
	if azurite.Is(err, bloberror.LeaseAlreadyPresent) {
		return false, nil
	}
	return err == nil, err
}

// renew ends the process when the lock is lost, as there by default.
func (l *lock) renew() {
	ticks := time.NewTicker(l.ttl / 2)
	defer ticks.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-ticks.C:
			if _, err := l.lease.RenewLease(context.Background(), nil); err != nil {
				job.Say("lost")
				fmt.Fprintln(os.Stderr, err)
				os.Exit(2)
			}
		}
	}
}

func (l *lock) Unlock() error {
	close(l.done)
	_, err := l.lease.ReleaseLease(context.Background(), nil)
	return err
}
