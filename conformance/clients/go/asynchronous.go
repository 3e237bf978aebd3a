package main

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	runtime "github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"
	"github.com/aws/smithy-go/middleware"
)

const patience = time.Minute

type (
	asyncInput  = runtime.InvokeEndpointAsyncInput
	asyncOutput = runtime.InvokeEndpointAsyncOutput
)

var location = regexp.MustCompile(`^s3://([^/]+)/(.+)$`)

// invokeAsync calls the asynchronous endpoint, unless the input names another.
func invokeAsync(t *T, client *runtime.Client, input asyncInput) (*asyncOutput, error) {
	if input.EndpointName == nil {
		input.EndpointName = asyncEndpoint(t)
	}
	return client.InvokeEndpointAsync(background, &input)
}

func asyncOnce(t *T, client *runtime.Client, endpointName string) (middleware.Metadata, error) {
	input := asyncInput{Body: []byte("x")}
	if endpointName != "" {
		input.EndpointName = &endpointName
	}
	output, err := invokeAsync(t, client, input)
	if err != nil {
		return middleware.Metadata{}, err
	}
	return output.ResultMetadata, nil
}

func storage(t *T) *s3.Client {
	return s3.NewFromConfig(configuration(t), func(o *s3.Options) { o.UsePathStyle = true })
}

// fetch waits for the object at an s3:// URL.
func fetch(t *T, url *string) (body []byte, contentType *string) {
	found := location.FindStringSubmatch(aws.ToString(url))
	check(t, found != nil, "no location: "+aws.ToString(url))
	client := storage(t)
	waiter := s3.NewObjectExistsWaiter(client, func(o *s3.ObjectExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 100*time.Millisecond, time.Second
	})
	t.Must(waiter.Wait(background, &s3.HeadObjectInput{Bucket: &found[1], Key: &found[2]}, patience))
	output, err := client.GetObject(background, &s3.GetObjectInput{Bucket: &found[1], Key: &found[2]})
	t.Must(err)
	defer output.Body.Close()
	body, err = io.ReadAll(output.Body)
	t.Must(err)
	return body, output.ContentType
}

func upload(t *T, body []byte) *string {
	bucket, key := t.Required("CONFORMANCE_BUCKET"), "in/"+unique()
	input := &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(body)}
	_, err := storage(t).PutObject(background, input)
	t.Must(err)
	return aws.String(fmt.Sprintf("s3://%s/%s", bucket, key))
}

var asyncBehaviours = []Behaviour{
	{"async.members-in", func(t *T) {
		id, client := unique(), newClient(t)
		output, err := invokeAsync(t, client, asyncInput{
			Body:                     []byte("x"),
			ContentType:              aws.String("text/csv; charset=utf-8"),
			Accept:                   aws.String("application/json"),
			CustomAttributes:         aws.String("a=1; b='two', c~"),
			InferenceId:              &id,
			RequestTTLSeconds:        aws.Int32(600),
			InvocationTimeoutSeconds: aws.Int32(60),
			S3OutputPathExtension:    aws.String("extension/" + id),
			Filename:                 aws.String("result.json"),
		})
		t.Must(err)
		same(t, output.InferenceId, id, "InferenceId")
		named := strings.HasSuffix(*output.OutputLocation, "/extension/"+id+"/result.json")
		check(t, named, *output.OutputLocation)
		body, _ := fetch(t, output.OutputLocation)
		saw := parse(t, body)
		equal(t, saw.Headers["content-type"], "text/csv; charset=utf-8", "ContentType")
		equal(t, saw.Headers["accept"], "application/json", "Accept")
		equal(t, saw.Headers["x-amzn-sagemaker-custom-attributes"], "a=1; b='two', c~", "CustomAttributes")
		equal(t, saw.Headers["x-amzn-sagemaker-inference-id"], id, "InferenceId")
		equal(t, saw.Length, 1, "length")
		for _, wrong := range []asyncInput{
			{Body: []byte("x"), RequestTTLSeconds: aws.Int32(59)},
			{Body: []byte("x"), InvocationTimeoutSeconds: aws.Int32(3601)},
		} {
			_, err := invokeAsync(t, client, wrong)
			failure[*types.ValidationError](t, err)
		}
	}},
	{"async.result", func(t *T) {
		body := everyByte(100_000)
		output, err := invokeAsync(t, newClient(t), asyncInput{Body: body, Accept: aws.String(raw)})
		t.Must(err)
		id, _ := awsmiddleware.GetRequestIDMetadata(output.ResultMetadata)
		check(t, id != "", "no request id")
		check(t, aws.ToString(output.InferenceId) != "", "no InferenceId")
		check(t, strings.HasSuffix(aws.ToString(output.FailureLocation), "-error.out"), "no FailureLocation")
		result, contentType := fetch(t, output.OutputLocation)
		same(t, contentType, raw, "the object's content type")
		equal(t, hash(result), hash(body), "the object's hash")
	}},
	{"async.input-location", func(t *T) {
		body := everyByte(5_000_000)
		input := asyncInput{InputLocation: upload(t, body), Accept: aws.String(raw)}
		output, err := invokeAsync(t, newClient(t), input)
		t.Must(err)
		result, _ := fetch(t, output.OutputLocation)
		equal(t, hash(result), hash(body), "the object's hash")
	}},
	{"async.failure", func(t *T) {
		what := order(object{"status": 500, "body": "the model's words"})
		output, err := invokeAsync(t, newClient(t), asyncInput{Body: what, ContentType: aws.String(orderType)})
		t.Must(err)
		body, _ := fetch(t, output.FailureLocation)
		check(t, strings.Contains(string(body), "the model's words"), string(body))
	}},
	{"async.body-and-location", func(t *T) {
		for _, input := range []asyncInput{
			{Body: []byte("x"), InputLocation: aws.String("s3://bucket/key")},
			{},
		} {
			_, err := invokeAsync(t, newClient(t), input)
			failure[*types.ValidationError](t, err)
		}
	}},
	{"async.body-too-large", func(t *T) {
		_, err := invokeAsync(t, newClient(t), asyncInput{Body: make([]byte, 128_001)})
		failure[*types.ValidationError](t, err)
	}},
	{"async.validation-error", func(t *T) {
		missingEndpoint[*types.ValidationError](asyncOnce)(t)
		_, err := asyncOnce(t, newClient(t), *endpoint(t))
		failure[*types.ValidationError](t, err)
	}},
	{"async.internal-failure", typed[*types.InternalFailure](asyncOnce, "InternalFailure", 500)},
	{"async.service-unavailable", typed[*types.ServiceUnavailable](asyncOnce, "ServiceUnavailable", 503)},
	{"async.retries", retries(asyncOnce, "ServiceUnavailable")},
	{"async.connection-reuse", connectionReuse(func(t *T, client *runtime.Client, _ int) {
		_, err := asyncOnce(t, client, "")
		t.Must(err)
	})},
	{"async.wrong-secret", wrongSecret(asyncOnce)},
}
