// Command azmutex sends what the library youscan/go-azuremutex sends, with the same pauses: it cannot be had as a
// module.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"

	"leasehold.test/peers/internal/azurite"
	"leasehold.test/peers/internal/job"
)

// What the library has as constants.
const (
	leaseSeconds  = 60
	renewInterval = 10 * time.Second
)

func main() {
	// A constant there; an argument here so that a test can be short.
	poll := flag.Duration("poll", 10*time.Second, "the pause between two tries")
	flag.Parse()
	if flag.NArg() < 4 {
		job.Main(fmt.Errorf("azmutex [-poll PAUSE] ENDPOINT CONTAINER KEY %s", job.Usage))
	}
	endpoint, container, key := flag.Arg(0), flag.Arg(1), flag.Arg(2)
	job.Main(job.Run(flag.Args()[3:], func() (job.Lock, error) {
		return &lock{endpoint: endpoint, container: container, key: key, poll: *poll}, nil
	}))
}

type lock struct {
	endpoint, container, key string
	poll                     time.Duration
	lease                    *lease.BlobClient
	done                     chan struct{}
}

// TryLock makes the container, puts an empty blob over one that nobody holds, and asks for its lease.
func (l *lock) TryLock() (bool, error) {
	ctx := context.Background()
	client, err := azurite.Client(l.endpoint, "")
	if err != nil {
		return false, err
	}
	containers := client.ServiceClient().NewContainerClient(l.container)
	_, err = containers.Create(ctx, nil)
	if err != nil && !azurite.Is(err, bloberror.ContainerAlreadyExists) {
		return false, err
	}
	_, err = client.UploadBuffer(ctx, l.container, l.key, []byte{}, nil)
	if azurite.Is(err, bloberror.LeaseIDMissing) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	l.lease, err = lease.NewBlobClient(containers.NewBlobClient(l.key), nil)
	if err != nil {
		return false, err
	}
	_, err = l.lease.AcquireLease(ctx, leaseSeconds, nil)
	if azurite.Is(err, bloberror.LeaseAlreadyPresent) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	l.done = make(chan struct{})
	go l.renew()
	return true, nil
}

func (l *lock) Lock() error {
	for {
		locked, err := l.TryLock()
		if locked || err != nil {
			return err
		}
		time.Sleep(l.poll)
	}
}

// renew only says what goes wrong, as there.
func (l *lock) renew() {
	for {
		select {
		case <-l.done:
			return
		case <-time.After(renewInterval):
			if _, err := l.lease.RenewLease(context.Background(), nil); err != nil {
				fmt.Fprintln(os.Stderr, "could not renew:", err)
			}
		}
	}
}

func (l *lock) Unlock() error {
	close(l.done)
	_, err := l.lease.ReleaseLease(context.Background(), nil)
	return err
}
