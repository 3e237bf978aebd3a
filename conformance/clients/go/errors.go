package main

import (
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	runtime "github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// call is one call of some operation, to its endpoint unless another is named.
type call func(t *T, client *runtime.Client, endpointName string) (middleware.Metadata, error)

var notFound = regexp.MustCompile(`^Endpoint no-such-endpoint of account \d{12} not found\.$`)

// typed: an error that the gateway shows on demand arrives as its type.
func typed[E smithy.APIError](one call, name string, status int) func(*T) {
	return func(t *T) {
		fail(t, name, 1)
		_, err := one(t, newFailing(t, once), "")
		error := failure[E](t, err)
		equal(t, error.ErrorCode(), name, "code")
		equal(t, statusOf(t, err), status, "status")
		check(t, error.ErrorMessage() != "", "the error has no message")
	}
}

func retries(one call, names ...string) func(*T) {
	return func(t *T) {
		for _, name := range names {
			fail(t, name, 2)
			metadata, err := one(t, newFailing(t), "")
			t.Must(err)
			equal(t, count(t).Attempts, 3, "attempts at "+name)
			results, _ := retry.GetAttemptResults(metadata)
			equal(t, len(results.Results), 3, "the SDK's attempts")
		}
	}
}

// missingEndpoint wants an error of the type that the SDK has for ValidationError.
func missingEndpoint[E smithy.APIError](one call) func(*T) {
	return func(t *T) {
		_, err := one(t, newClient(t, once), missing)
		error := failure[E](t, err)
		equal(t, statusOf(t, err), 400, "status")
		check(t, notFound.MatchString(error.ErrorMessage()), error.ErrorMessage())
	}
}

func wrongSecret(one call) func(*T) {
	return func(t *T) {
		_, err := one(t, newClient(t, stranger(t.Required("AWS_ACCESS_KEY_ID"))), "")
		untyped(t, err, "InvalidSignatureException", 403)
	}
}

func unknownKey(one call) func(*T) {
	return func(t *T) {
		_, err := one(t, newClient(t, stranger("AKIAAAAAAAAAAAAAAAAA")), "")
		untyped(t, err, "UnrecognizedClientException", 403)
	}
}

// connectionReuse: `use` calls once with the client; an odd turn may be one that fails.
func connectionReuse(use func(t *T, client *runtime.Client, turn int)) func(*T) {
	return func(t *T) {
		client := newFailing(t)
		before := count(t).Connections
		for turn := range 20 {
			use(t, client, turn)
		}
		equal(t, count(t).Connections-before, 1, "connections")
	}
}
