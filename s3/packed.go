package main

import (
	"bytes"
	"compress/flate"
	"io"
	"os"

	"github.com/versity/versitygw/backend/meta"
)

const longValue = 512 // bytes

// packedValue begins a value that is packed. No other begins with a zero: they are texts, numbers and JSON.
var packedValue = []byte{0, 'z'}

// packed keeps long values in less space. A file of ext4 has 4 KB for all its extended attributes, and the tags of one
// object may be as long.
type packed struct{ meta.MetadataStorer }

func (m packed) StoreAttribute(f *os.File, bucket, object, attribute string, value []byte) error {
	if len(value) >= longValue {
		value = pack(value)
	}
	return m.MetadataStorer.StoreAttribute(f, bucket, object, attribute, value)
}

func (m packed) RetrieveAttribute(f *os.File, bucket, object, attribute string) ([]byte, error) {
	value, err := m.MetadataStorer.RetrieveAttribute(f, bucket, object, attribute)
	if rest, isPacked := bytes.CutPrefix(value, packedValue); err == nil && isPacked {
		return io.ReadAll(flate.NewReader(bytes.NewReader(rest)))
	}
	return value, err
}

func pack(value []byte) []byte {
	result := bytes.NewBuffer(bytes.Clone(packedValue))
	writer, _ := flate.NewWriter(result, flate.BestCompression) // fails for an unknown level only
	writer.Write(value)                                         // as does a buffer never
	writer.Close()
	if result.Len() >= len(value) {
		return value
	}
	return result.Bytes()
}
