// Package azurite reaches the Azurite that the tests run on.
package azurite

import (
	"errors"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
)

// Azurite's well-known account and key, which are no secret.
const (
	name = "devstoreaccount1"
	key  = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// Client is one of this endpoint. An empty version is the SDK's own.
func Client(endpoint, version string) (*azblob.Client, error) {
	credential, err := azblob.NewSharedKeyCredential(name, key)
	if err != nil {
		return nil, err
	}
	options := &azblob.ClientOptions{}
	if version != "" {
		options.PerCallPolicies = []policy.Policy{speaks(version)}
	}
	return azblob.NewClientWithSharedKeyCredential(endpoint, credential, options)
}

// speaks sets the version of the protocol, before the request is signed.
type speaks string

func (version speaks) Do(request *policy.Request) (*http.Response, error) {
	// As the SDK spells it, so that there is one.
	request.Raw().Header["x-ms-version"] = []string{string(version)}
	return request.Next()
}

// Is says whether the service answered one of these codes.
func Is(err error, codes ...bloberror.Code) bool {
	var answer *azcore.ResponseError
	return errors.As(err, &answer) && bloberror.HasCode(err, codes...)
}
