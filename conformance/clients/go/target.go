package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	runtime "github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"
	"github.com/aws/smithy-go"
)

const (
	orderType = "application/x-order"
	raw       = "application/octet-stream"
	missing   = "no-such-endpoint"
)

type (
	object  map[string]any
	options = func(*runtime.Options)
)

var (
	raced      atomic.Bool
	background = httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{WroteRequest: noteRace})
)

// noteRace sets `raced` when the SDK has cut a connection of its own. Once a reply has come it closes the request's
// body, and if net/http still looks for the body's end, smithy-go's WriteTo answers io.EOF, which net/http takes for a
// failure to write: it closes the connection, also below the reply.
func noteRace(request httptrace.WroteRequestInfo) {
	if request.Err == io.EOF {
		raced.Store(true)
	}
}

func endpoint(t *T) *string {
	return aws.String(t.Required("CONFORMANCE_ENDPOINT"))
}

func asyncEndpoint(t *T) *string {
	return aws.String(t.Required("CONFORMANCE_ASYNC_ENDPOINT"))
}

func configuration(t *T) aws.Config {
	found, err := config.LoadDefaultConfig(background)
	t.Must(err)
	return found
}

// newClient is a client of the target, as the environment names it.
func newClient(t *T, with ...options) *runtime.Client {
	return runtime.NewFromConfig(configuration(t), with...)
}

// newFailing is a client of the gateway that fails on demand.
func newFailing(t *T, with ...options) *runtime.Client {
	url := t.Required("CONFORMANCE_FAILING_URL")
	with = append(with, func(o *runtime.Options) { o.BaseEndpoint = &url })
	return newClient(t, with...)
}

func once(o *runtime.Options) {
	o.RetryMaxAttempts = 1
}

func stranger(accessKeyID string) options {
	return func(o *runtime.Options) {
		o.Credentials = credentials.NewStaticCredentialsProvider(accessKeyID, "not-the-secret", "")
	}
}

// order is the body that tells the model what to do.
func order(what object) []byte {
	body, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	return body
}

// seen is what reached the model.
type seen struct {
	Headers map[string]string
	Length  int
	Sha256  string
}

func parse(t *T, body []byte) seen {
	var saw seen
	t.Must(json.Unmarshal(body, &saw))
	return saw
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// everyByte has every byte value, over and over.
func everyByte(length int) []byte {
	data := make([]byte, length)
	for index := range data {
		data[index] = byte(index*7 + index>>8)
	}
	return data
}

func unique() string {
	return rand.Text()
}

func fail(t *T, name string, times int) {
	url := fmt.Sprintf("%s/fail?error=%s&times=%d", t.Required("CONFORMANCE_FAILING_CONTROL"), name, times)
	reply, err := http.Post(url, "", nil)
	t.Must(err)
	t.Must(reply.Body.Close())
	equal(t, reply.StatusCode, 200, "the control's status")
}

type counts struct {
	Attempts    int
	Connections int
}

func count(t *T) counts {
	reply, err := http.Get(t.Required("CONFORMANCE_FAILING_CONTROL") + "/counts")
	t.Must(err)
	defer reply.Body.Close()
	var counted counts
	t.Must(json.NewDecoder(reply.Body).Decode(&counted))
	return counted
}

// statusOf is the HTTP status that an error came with.
func statusOf(t *T, err error) int {
	var reply interface{ HTTPStatusCode() int }
	if !errors.As(err, &reply) {
		t.Fatalf("%v has no HTTP status", err)
	}
	return reply.HTTPStatusCode()
}

func requestIDOf(t *T, err error) string {
	var reply interface{ ServiceRequestID() string }
	if !errors.As(err, &reply) {
		t.Fatalf("%v has no request id", err)
	}
	return reply.ServiceRequestID()
}

// untyped is an error that the SDK has no type for.
func untyped(t *T, err error, code string, status int) {
	equal(t, failure[smithy.APIError](t, err).ErrorCode(), code, "code")
	equal(t, statusOf(t, err), status, "status")
}

// within is a context that ends, for what must not take longer.
func within(duration time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(background, duration)
}
