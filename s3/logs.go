package main

import (
	"bufio"
	"io"
	"log"
	"log/slog"
	"os"
	"regexp"
	"strings"
)

var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// logToStderr makes one JSON object a line, with the members time, level and msg, of what is logged here and of the
// errors that versitygw prints; its announcements are dropped. A panic that ends the program is printed by Go as it is.
func logToStderr() {
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	reader, writer, err := os.Pipe()
	if err != nil {
		slog.Warn("errors of versitygw are printed as they are: " + err.Error())
		return
	}
	os.Stdout, os.Stderr = nil, writer
	log.SetFlags(0)
	log.SetOutput(writer)
	go func() {
		lines := bufio.NewReader(reader)
		for {
			line, err := lines.ReadString('\n')
			logPrinted(line)
			if err == io.EOF {
				return
			}
		}
	}()
}

func logPrinted(line string) {
	text := strings.TrimSpace(colour.ReplaceAllString(line, ""))
	if text == "" {
		return
	}
	for _, prefix := range []string{"[PANIC]: ", "[INTERNAL ERROR]: "} {
		if rest, found := strings.CutPrefix(text, prefix); found {
			slog.Error(rest)
			return
		}
	}
	slog.Warn(text)
}
