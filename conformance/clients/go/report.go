package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

const tries = 5

// T is what a behaviour fails, is skipped, or notes a detail with.
type T struct {
	detail string
}

type failed struct{ reason string }

type skipped struct{ reason string }

func (t *T) Fatalf(format string, arguments ...any) {
	panic(failed{fmt.Sprintf(format, arguments...)})
}

func (t *T) Note(format string, arguments ...any) {
	t.detail = fmt.Sprintf(format, arguments...)
}

// Must ends the behaviour unless there is no error.
func (t *T) Must(err error) {
	if err != nil {
		t.Fatalf("%T: %v", err, err)
	}
}

// Required is the value of an environment variable that the behaviour cannot do without.
func (t *T) Required(name string) string {
	value := os.Getenv(name)
	if value == "" {
		panic(skipped{name + " is not set"})
	}
	return value
}

func equal[V comparable](t *T, actual, expected V, what string) {
	if actual != expected {
		t.Fatalf("%s: %.200q instead of %.200q", what, fmt.Sprint(actual), fmt.Sprint(expected))
	}
}

// same compares what an optional member points to.
func same(t *T, actual *string, expected, what string) {
	if actual == nil {
		t.Fatalf("%s is missing", what)
	}
	equal(t, *actual, expected, what)
}

func check(t *T, condition bool, what string) {
	if !condition {
		t.Fatalf("%s", what)
	}
}

// failure is the error of the given type that a call must have ended with.
func failure[E error](t *T, err error) E {
	var expected E
	if !errors.As(err, &expected) {
		t.Fatalf("%T: %v, where %T was expected", err, err, expected)
	}
	return expected
}

// Behaviour is one row of behaviours.toml.
type Behaviour struct {
	id   string
	test func(*T)
}

// report runs the behaviours one after another and prints each outcome as a line of JSON.
func report(behaviours []Behaviour) {
	encoder := json.NewEncoder(os.Stdout)
	for _, each := range behaviours {
		outcome, detail := outcomeWithoutRaces(each.test)
		line := map[string]string{"behaviour": each.id, "outcome": outcome, "detail": detail}
		if err := encoder.Encode(line); err != nil {
			panic(err)
		}
	}
}

// outcomeWithoutRaces tries a behaviour again that has failed while the SDK lost a race with itself.
func outcomeWithoutRaces(test func(*T)) (outcome, detail string) {
	for range tries {
		raced.Store(false)
		outcome, detail = outcomeOf(test)
		if outcome != "failed" || !raced.Load() {
			return
		}
	}
	return
}

func outcomeOf(test func(*T)) (outcome, detail string) {
	t := &T{}
	defer func() {
		switch reason := recover().(type) {
		case nil:
			outcome, detail = "passed", t.detail
		case failed:
			outcome, detail = "failed", reason.reason
		case skipped:
			outcome, detail = "skipped", reason.reason
		default:
			panic(reason)
		}
	}()
	test(t)
	return
}
