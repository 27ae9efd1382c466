// Command blob looks at the blob of a lock and writes its metadata, as an operator may.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"

	"leasehold.test/peers/internal/azurite"
	"leasehold.test/peers/internal/job"
)

func main() {
	flag.Parse()
	job.Main(run(flag.Args()))
}

func run(words []string) error {
	if len(words) < 4 {
		return errors.New("blob ENDPOINT CONTAINER BLOB show | set KEY VALUE [LEASE]")
	}
	client, err := azurite.Client(words[0], "")
	if err != nil {
		return err
	}
	at := client.ServiceClient().NewContainerClient(words[1]).NewBlobClient(words[2])
	switch what := words[3:]; {
	case len(what) == 1 && what[0] == "show":
		return show(at)
	case (len(what) == 3 || len(what) == 4) && what[0] == "set":
		options := &blob.SetMetadataOptions{}
		if len(what) == 4 {
			conditions := &blob.LeaseAccessConditions{LeaseID: to.Ptr(what[3])}
			options.AccessConditions = &blob.AccessConditions{LeaseAccessConditions: conditions}
		}
		_, err := at.SetMetadata(context.Background(), map[string]*string{what[1]: to.Ptr(what[2])}, options)
		return err
	default:
		return fmt.Errorf("no such job: %q", what)
	}
}

// show prints the state of the lease and the metadata in one line.
func show(at *blob.Client) error {
	properties, err := at.GetProperties(context.Background(), nil)
	if err != nil {
		return err
	}
	line := string(*properties.LeaseState)
	for key, value := range properties.Metadata {
		line += fmt.Sprintf(" %s=%s", strings.ToLower(key), *value)
	}
	fmt.Println(line)
	return nil
}
