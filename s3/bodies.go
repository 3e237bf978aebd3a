package main

import (
	"io"

	"github.com/versity/versitygw/s3api/middlewares"
	"github.com/versity/versitygw/s3api/utils"
	"github.com/versity/versitygw/s3err"
)

// wholeBody is a body that must have the length that was declared. That of a request which was cut off ends like one
// that is whole (fasthttp), and the backend would keep what has come of it.
type wholeBody struct {
	io.Reader
	left int64
}

func (b *wholeBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.left -= int64(n)
	if err == io.EOF && b.left > 0 {
		return n, s3err.GetAPIError(s3err.ErrIncompleteBody)
	}
	return n, err
}

// wholeChecksumBody is one of which the backend asks the checksum that came at its end.
type wholeChecksumBody struct {
	wholeBody
	checksum middlewares.ChecksumReader
}

func (b *wholeChecksumBody) Algorithm() string { return b.checksum.Algorithm() }
func (b *wholeChecksumBody) Checksum() string  { return b.checksum.Checksum() }

// whole makes sure that a body is as long as declared. That of a form has an end of its own, which its reader looks for.
func whole(body io.Reader, length *int64) io.Reader {
	if _, isForm := body.(utils.MpFileReader); isForm || body == nil || length == nil {
		return body
	}
	counted := wholeBody{body, *length}
	if checksum, ok := body.(middlewares.ChecksumReader); ok {
		return &wholeChecksumBody{counted, checksum}
	}
	return &counted
}
