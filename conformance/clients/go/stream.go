package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	runtime "github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

type (
	streamInput  = runtime.InvokeEndpointWithResponseStreamInput
	streamOutput = runtime.InvokeEndpointWithResponseStreamOutput
)

// stream calls the endpoint, unless the input names another.
func stream(t *T, client *runtime.Client, input streamInput) (*streamOutput, error) {
	if input.EndpointName == nil {
		input.EndpointName = endpoint(t)
	}
	if input.Body == nil {
		input.Body = []byte{}
	}
	return client.InvokeEndpointWithResponseStream(background, &input)
}

// streamOnce reads the stream to its end.
func streamOnce(t *T, client *runtime.Client, endpointName string) (middleware.Metadata, error) {
	input := streamInput{}
	if endpointName != "" {
		input.EndpointName = &endpointName
	}
	output, err := stream(t, client, input)
	if err != nil {
		return middleware.Metadata{}, err
	}
	_, err = collect(t, output, nothing)
	return output.ResultMetadata, err
}

func orderedStream(what object) streamInput {
	return streamInput{ContentType: aws.String(orderType), Body: order(what)}
}

// collect reads a stream to its end; `each` sees every part.
func collect(t *T, output *streamOutput, each func(part string)) ([]byte, error) {
	events := output.GetStream()
	defer events.Close()
	var whole []byte
	for event := range events.Events() {
		part, isPart := event.(*types.ResponseStreamMemberPayloadPart)
		check(t, isPart, fmt.Sprintf("an event is a %T", event))
		whole = append(whole, part.Value.Bytes...)
		each(string(part.Value.Bytes))
	}
	return whole, events.Err()
}

func nothing(string) {}

func listed(number int) string {
	var whole strings.Builder
	for index := range number {
		fmt.Fprintf(&whole, "part-%06d\n", index)
	}
	return whole.String()
}

func streamRoundTrip(body []byte) func(*T) {
	return func(t *T) {
		output, err := stream(t, newClient(t), streamInput{Body: body, Accept: aws.String(raw)})
		t.Must(err)
		back, err := collect(t, output, nothing)
		t.Must(err)
		equal(t, hash(back), hash(body), "the body's hash")
	}
}

// broken is the error that a stream ended with, after the parts that came before.
func broken[E smithy.APIError](t *T, client *runtime.Client, what object) E {
	output, err := stream(t, client, orderedStream(what))
	t.Must(err)
	before, err := collect(t, output, nothing)
	equal(t, string(before), listed(3), "the parts before")
	error := failure[E](t, err)
	check(t, error.ErrorMessage() != "", "the error has no message")
	return error
}

var streamBehaviours = []Behaviour{
	{"stream.members-in", func(t *T) {
		output, err := stream(t, newClient(t), streamInput{
			Body:             []byte("x"),
			ContentType:      aws.String("text/csv; charset=utf-8"),
			Accept:           aws.String("application/json, */*;q=0.1"),
			CustomAttributes: aws.String("a=1; b='two', c~"),
			InferenceId:      aws.String("an id (with spaces)"),
			SessionId:        aws.String("session-1"),
			PrefixAwareId:    aws.String("prefix"),
			TargetVariant:    aws.String("Other"),
		})
		t.Must(err)
		same(t, output.InvokedProductionVariant, "Other", "TargetVariant")
		body, err := collect(t, output, nothing)
		t.Must(err)
		saw := parse(t, body)
		equal(t, saw.Headers["content-type"], "text/csv; charset=utf-8", "ContentType")
		equal(t, saw.Headers["accept"], "application/json, */*;q=0.1", "Accept")
		equal(t, saw.Headers["x-amzn-sagemaker-custom-attributes"], "a=1; b='two', c~", "CustomAttributes")
		equal(t, saw.Headers["x-amzn-sagemaker-inference-id"], "an id (with spaces)", "InferenceId")
		equal(t, saw.Headers["x-amzn-sagemaker-session-id"], "session-1", "SessionId")
		for _, input := range []streamInput{
			{InferenceComponentName: aws.String("component")},
			{TargetContainerHostname: aws.String("second")},
		} {
			_, err := stream(t, newClient(t), input)
			failure[*types.ValidationError](t, err)
		}
	}},
	{"stream.members-out", func(t *T) {
		output, err := stream(t, newClient(t), orderedStream(object{
			"parts":        2,
			"content_type": "text/x; charset=utf-8",
			"headers":      object{"X-Amzn-SageMaker-Custom-Attributes": "trace=1; b"},
		}))
		t.Must(err)
		same(t, output.ContentType, "text/x; charset=utf-8", "ContentType")
		same(t, output.InvokedProductionVariant, "Main", "InvokedProductionVariant")
		same(t, output.CustomAttributes, "trace=1; b", "CustomAttributes")
		id, _ := awsmiddleware.GetRequestIDMetadata(output.ResultMetadata)
		check(t, id != "", "no request id")
		body, err := collect(t, output, nothing)
		t.Must(err)
		equal(t, string(body), listed(2), "Body")
	}},
	{"stream.parts", func(t *T) {
		output, err := stream(t, newClient(t), orderedStream(object{"parts": 2000}))
		t.Must(err)
		body, err := collect(t, output, nothing)
		t.Must(err)
		equal(t, string(body), listed(2000), "Body")
	}},
	{"stream.part-at-once", func(t *T) {
		gate := unique()
		output, err := stream(t, newClient(t), orderedStream(object{"gate": gate}))
		t.Must(err)
		var parts []string
		_, err = collect(t, output, func(part string) {
			parts = append(parts, part)
			if len(parts) == 1 {
				_, err := invoke(t, newClient(t), ordered(object{"open": gate}))
				t.Must(err)
			}
		})
		t.Must(err)
		equal(t, strings.Join(parts, ","), "first,second", "parts")
	}},
	{"stream.body-empty", streamRoundTrip([]byte{})},
	{"stream.body-binary", streamRoundTrip(everyByte(65536))},
	{"stream.body-large", streamRoundTrip(everyByte(5_000_000))},
	{"stream.validation-error", missingEndpoint[*types.ValidationError](streamOnce)},
	{"stream.model-error", func(t *T) {
		_, err := stream(t, newClient(t), orderedStream(object{"status": 500, "body": "the model's words"}))
		modelErrorOf(t, err, 500)
	}},
	{"stream.model-stream-error", func(t *T) {
		error := broken[*types.ModelStreamError](t, newClient(t), object{"parts": 3, "break": true})
		same(t, error.ErrorCode_, "StreamBroken", "ErrorCode")
	}},
	{"stream.internal-stream-failure", func(t *T) {
		fail(t, "InternalStreamFailure", 1)
		broken[*types.InternalStreamFailure](t, newFailing(t), object{"parts": 3})
	}},
	{"stream.internal-failure", typed[*types.InternalFailure](streamOnce, "InternalFailure", 500)},
	{"stream.service-unavailable", typed[*types.ServiceUnavailable](streamOnce, "ServiceUnavailable", 503)},
	{"stream.retries", retries(streamOnce, "ServiceUnavailable")},
	{"stream.abandoned", func(t *T) {
		client := newClient(t)
		leaving, leave := context.WithCancel(background)
		defer leave()
		input := orderedStream(object{"gate": unique()})
		input.EndpointName = endpoint(t)
		output, err := client.InvokeEndpointWithResponseStream(leaving, &input)
		t.Must(err)
		part, isPart := (<-output.GetStream().Events()).(*types.ResponseStreamMemberPayloadPart)
		check(t, isPart && string(part.Value.Bytes) == "first", "the first part did not come")
		leave()
		if err := output.GetStream().Close(); err != nil && !errors.Is(err, context.Canceled) {
			t.Must(err)
		}
		output, err = stream(t, client, orderedStream(object{"parts": 1}))
		t.Must(err)
		body, err := collect(t, output, nothing)
		t.Must(err)
		equal(t, string(body), listed(1), "the next stream")
	}},
	{"stream.connection-reuse", connectionReuse(func(t *T, client *runtime.Client, _ int) {
		output, err := stream(t, client, orderedStream(object{"parts": 3}))
		t.Must(err)
		_, err = collect(t, output, nothing)
		t.Must(err)
	})},
	{"stream.wrong-secret", wrongSecret(streamOnce)},
}
