package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	runtime "github.com/aws/aws-sdk-go-v2/service/sagemakerruntime"
	"github.com/aws/aws-sdk-go-v2/service/sagemakerruntime/types"
	"github.com/aws/smithy-go/middleware"
)

const mib = 1024 * 1024

// invoke calls the endpoint, unless the input names another.
func invoke(t *T, client *runtime.Client, input runtime.InvokeEndpointInput) (*runtime.InvokeEndpointOutput, error) {
	if input.EndpointName == nil {
		input.EndpointName = endpoint(t)
	}
	if input.Body == nil {
		input.Body = []byte{}
	}
	return client.InvokeEndpoint(background, &input)
}

func invokeOnce(t *T, client *runtime.Client, endpointName string) (middleware.Metadata, error) {
	input := runtime.InvokeEndpointInput{}
	if endpointName != "" {
		input.EndpointName = &endpointName
	}
	output, err := invoke(t, client, input)
	if err != nil {
		return middleware.Metadata{}, err
	}
	return output.ResultMetadata, nil
}

func ordered(what object) runtime.InvokeEndpointInput {
	return runtime.InvokeEndpointInput{ContentType: aws.String(orderType), Body: order(what)}
}

func invokeRoundTrip(body []byte) func(*T) {
	return func(t *T) {
		input := runtime.InvokeEndpointInput{Body: body, Accept: aws.String(raw)}
		output, err := invoke(t, newClient(t), input)
		t.Must(err)
		equal(t, hash(output.Body), hash(body), "the body's hash")
	}
}

func modelErrorOf(t *T, err error, status int32) {
	error := failure[*types.ModelError](t, err)
	equal(t, statusOf(t, err), 424, "status")
	equal(t, aws.ToInt32(error.OriginalStatusCode), status, "OriginalStatusCode")
	same(t, error.OriginalMessage, "the model's words", "OriginalMessage")
	group := ":log-group:/aws/sagemaker/Endpoints/" + *endpoint(t)
	check(t, strings.HasSuffix(aws.ToString(error.LogStreamArn), group), aws.ToString(error.LogStreamArn))
	check(t, strings.Contains(error.ErrorMessage(), fmt.Sprintf("(%d) from", status)), error.ErrorMessage())
}

var invokeBehaviours = []Behaviour{
	{"invoke.members-in", func(t *T) {
		output, err := invoke(t, newClient(t), runtime.InvokeEndpointInput{
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
		saw := parse(t, output.Body)
		equal(t, saw.Headers["content-type"], "text/csv; charset=utf-8", "ContentType")
		equal(t, saw.Headers["accept"], "application/json, */*;q=0.1", "Accept")
		equal(t, saw.Headers["x-amzn-sagemaker-custom-attributes"], "a=1; b='two', c~", "CustomAttributes")
		equal(t, saw.Headers["x-amzn-sagemaker-inference-id"], "an id (with spaces)", "InferenceId")
		equal(t, saw.Headers["x-amzn-sagemaker-session-id"], "session-1", "SessionId")
		equal(t, saw.Length, 1, "length")
	}},
	{"invoke.members-out", func(t *T) {
		output, err := invoke(t, newClient(t), ordered(object{
			"body":         "done",
			"content_type": "text/x; charset=utf-8",
			"headers": object{
				"X-Amzn-SageMaker-Custom-Attributes": "trace=1; b",
				"X-Amzn-SageMaker-New-Session-Id":    "s-1; Expires=2030-01-02T03:04:05Z",
				"X-Amzn-SageMaker-Closed-Session-Id": "s-0",
			},
		}))
		t.Must(err)
		equal(t, string(output.Body), "done", "Body")
		same(t, output.ContentType, "text/x; charset=utf-8", "ContentType")
		same(t, output.InvokedProductionVariant, "Main", "InvokedProductionVariant")
		same(t, output.CustomAttributes, "trace=1; b", "CustomAttributes")
		same(t, output.NewSessionId, "s-1; Expires=2030-01-02T03:04:05Z", "NewSessionId")
		same(t, output.ClosedSessionId, "s-0", "ClosedSessionId")
	}},
	{"invoke.request-id", func(t *T) {
		metadata, err := invokeOnce(t, newClient(t), "")
		t.Must(err)
		id, _ := awsmiddleware.GetRequestIDMetadata(metadata)
		check(t, id != "", "the reply has no request id")
		_, err = invoke(t, newClient(t), ordered(object{"status": 400}))
		check(t, requestIDOf(t, err) != "", "the error has no request id")
	}},
	{"invoke.body-empty", invokeRoundTrip([]byte{})},
	{"invoke.body-binary", invokeRoundTrip(everyByte(65536))},
	{"invoke.body-large", invokeRoundTrip(everyByte(5_000_000))},
	{"invoke.body-too-large", func(t *T) {
		_, err := invoke(t, newClient(t), runtime.InvokeEndpointInput{Body: make([]byte, 6*mib+1)})
		untyped(t, err, "RequestEntityTooLargeException", 413)
	}},
	{"invoke.custom-attributes", func(t *T) {
		visible := make([]byte, 1024)
		for index := range visible {
			visible[index] = byte(0x21 + index%94)
		}
		attributes := func(value string) ([]byte, error) {
			input := runtime.InvokeEndpointInput{CustomAttributes: &value}
			output, err := invoke(t, newClient(t), input)
			if err != nil {
				return nil, err
			}
			return output.Body, nil
		}
		body, err := attributes(string(visible))
		t.Must(err)
		equal(t, parse(t, body).Headers["x-amzn-sagemaker-custom-attributes"], string(visible), "CustomAttributes")
		_, err = attributes(string(visible) + "x")
		failure[*types.ValidationError](t, err)
		_, err = attributes("naïve ☃")
		failure[*types.ValidationError](t, err)
	}},
	{"invoke.target-variant", func(t *T) {
		for name, invoked := range map[string]string{"": "Main", "Other": "Other"} {
			input := runtime.InvokeEndpointInput{}
			if name != "" {
				input.TargetVariant = &name
			}
			output, err := invoke(t, newClient(t), input)
			t.Must(err)
			same(t, output.InvokedProductionVariant, invoked, "InvokedProductionVariant")
		}
		_, err := invoke(t, newClient(t), runtime.InvokeEndpointInput{TargetVariant: aws.String("Third")})
		failure[*types.ValidationError](t, err)
	}},
	{"invoke.not-supported", func(t *T) {
		for _, input := range []runtime.InvokeEndpointInput{
			{TargetModel: aws.String("one.tar.gz")},
			{InferenceComponentName: aws.String("component")},
			{TargetContainerHostname: aws.String("second")},
			{EnableExplanations: aws.String("`true`")},
		} {
			_, err := invoke(t, newClient(t), input)
			failure[*types.ValidationError](t, err)
		}
	}},
	{"invoke.validation-error", missingEndpoint[*types.ValidationError](invokeOnce)},
	{"invoke.model-error", func(t *T) {
		for _, status := range []int32{400, 503} {
			_, err := invoke(t, newClient(t), ordered(object{"status": status, "body": "the model's words"}))
			modelErrorOf(t, err, status)
		}
	}},
	{"invoke.model-not-ready", typed[*types.ModelNotReadyException](invokeOnce, "ModelNotReadyException", 429)},
	{"invoke.internal-failure", typed[*types.InternalFailure](invokeOnce, "InternalFailure", 500)},
	{"invoke.service-unavailable", typed[*types.ServiceUnavailable](invokeOnce, "ServiceUnavailable", 503)},
	{
		"invoke.internal-dependency",
		typed[*types.InternalDependencyException](invokeOnce, "InternalDependencyException", 530),
	},
	{"invoke.retries", retries(invokeOnce, "ServiceUnavailable", "InternalFailure")},
	{"invoke.no-retries", func(t *T) {
		name := unique()
		_, err := invoke(t, newClient(t), ordered(object{"count": name, "status": 500}))
		failure[*types.ModelError](t, err)
		output, err := invoke(t, newClient(t), ordered(object{"counted": name}))
		t.Must(err)
		equal(t, string(output.Body), "1", "attempts")
	}},
	{"invoke.client-timeout", func(t *T) {
		client := newClient(t)
		hanging := ordered(object{"hang": true})
		hanging.EndpointName = endpoint(t)
		patience, cancel := within(500 * time.Millisecond)
		defer cancel()
		_, err := client.InvokeEndpoint(patience, &hanging)
		check(t, errors.Is(err, context.DeadlineExceeded), fmt.Sprint(err))
		output, err := invoke(t, client, ordered(object{"body": "next"}))
		t.Must(err)
		equal(t, string(output.Body), "next", "the next call")
	}},
	{"invoke.connection-reuse", connectionReuse(func(t *T, client *runtime.Client, turn int) {
		if turn%2 == 0 {
			_, err := invokeOnce(t, client, "")
			t.Must(err)
			return
		}
		_, err := invoke(t, client, ordered(object{"status": 400}))
		failure[*types.ModelError](t, err)
	})},
	{"invoke.concurrent", func(t *T) {
		client, name := newClient(t), endpoint(t)
		var all sync.WaitGroup
		wrong := make(chan error, 32)
		for index := range 32 {
			body := fmt.Sprintf("body %d", index)
			all.Go(func() {
				input := runtime.InvokeEndpointInput{EndpointName: name, Body: []byte(body), Accept: aws.String(raw)}
				output, err := client.InvokeEndpoint(background, &input)
				if err == nil && string(output.Body) != body {
					err = fmt.Errorf("%q instead of %q", output.Body, body)
				}
				if err != nil {
					wrong <- err
				}
			})
		}
		all.Wait()
		close(wrong)
		t.Must(<-wrong)
	}},
	{"invoke.wrong-secret", wrongSecret(invokeOnce)},
	{"invoke.unknown-key", unknownKey(invokeOnce)},
}
