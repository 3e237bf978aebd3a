// The AWS SDK for Go v2 as a client: every behaviour of ../../behaviours.toml that it can show.
package main

import "slices"

func main() {
	report(slices.Concat(invokeBehaviours, streamBehaviours, asyncBehaviours))
}
