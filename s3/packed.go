package main

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"io"
	"os"

	"github.com/versity/versitygw/backend/meta"
)

const (
	partsAttribute = "mp-metadata"
	longValue      = 512 // bytes
)

// What begins a value that is packed, and one that has the sizes of parts. No other begins with a zero: they are texts,
// numbers and JSON, or compressed in another way.
var (
	packedValue = []byte{0, 'z'}
	packedParts = []byte{0, 'p'}
)

// packed keeps long values in less space. A file of ext4 has 4 KB for all its extended attributes. The tags of one
// object may be as long, and where its parts end, as the backend writes it, is longer from some 800 parts on: 8 GB in
// parts of 8 MB could not be completed. To where its parts end, it adds their checksums.
type packed struct {
	meta.MetadataStorer
	completing *completing
}

func (m packed) StoreAttribute(f *os.File, bucket, object, attribute string, value []byte) error {
	if attribute == partsAttribute {
		var err error
		if value, err = m.packParts(value); err != nil {
			return err
		}
	} else if len(value) >= longValue {
		value = pack(packedValue, value)
	}
	return m.MetadataStorer.StoreAttribute(f, bucket, object, attribute, value)
}

func (m packed) RetrieveAttribute(f *os.File, bucket, object, attribute string) ([]byte, error) {
	value, err := m.MetadataStorer.RetrieveAttribute(f, bucket, object, attribute)
	if err != nil {
		return value, err
	}
	if rest, found := bytes.CutPrefix(value, packedValue); found {
		return unpack(rest)
	}
	if rest, found := bytes.CutPrefix(value, packedParts); found {
		return unpackParts(rest)
	}
	return value, nil
}

// packParts writes how long each part is, instead of where it ends: most are alike, so that little is left of them.
func (m packed) packParts(value []byte) ([]byte, error) {
	upload, err := unmarshalUpload(value)
	if err != nil {
		return nil, err
	}
	if upload.Checksums == nil { // else it is a copy of another attribute
		upload.Checksums = m.completing.of(upload.UploadID)
	}
	for i := len(upload.Parts) - 1; i > 0; i-- {
		upload.Parts[i] -= upload.Parts[i-1]
	}
	text, err := json.Marshal(upload)
	if err != nil {
		return nil, err
	}
	return pack(packedParts, text), nil
}

func unpackParts(rest []byte) ([]byte, error) {
	text, err := unpack(rest)
	if err != nil {
		return nil, err
	}
	var upload upload
	if err := json.Unmarshal(text, &upload); err != nil {
		return nil, err
	}
	for i := 1; i < len(upload.Parts); i++ {
		upload.Parts[i] += upload.Parts[i-1]
	}
	return json.Marshal(upload) // which the backend reads as well
}

func pack(beginning, value []byte) []byte {
	result := bytes.NewBuffer(bytes.Clone(beginning))
	writer, _ := flate.NewWriter(result, flate.BestCompression) // fails for an unknown level only
	writer.Write(value)                                         // as does a buffer never
	writer.Close()
	return result.Bytes()
}

func unpack(rest []byte) ([]byte, error) {
	return io.ReadAll(flate.NewReader(bytes.NewReader(rest)))
}
