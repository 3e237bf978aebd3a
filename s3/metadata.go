package main

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"os"
	"path/filepath"
	"slices"

	"github.com/versity/versitygw/backend/meta"
	"golang.org/x/sys/unix"
)

// The names under which the POSIX backend keeps what is used here.
const (
	aclAttribute          = "acl"
	ownershipAttribute    = "ownership"
	etagAttribute         = "etag"
	contentTypeAttribute  = "content-type"
	deleteMarkerAttribute = "delete-marker"
	versionAttribute      = "version-id"
)

// inferred adds, to the metadata that is stored, an ETag and a type of files that were written by another program:
// they have neither. The ETag is made of size and time of modification, so it changes with the file, needs no reading
// of it, and has the form of an object of several parts, which nobody takes for an MD5 of the content.
type inferred struct{ meta.MetadataStorer }

func (m inferred) RetrieveAttribute(f *os.File, bucket, object, attribute string) ([]byte, error) {
	value, err := m.MetadataStorer.RetrieveAttribute(f, bucket, object, attribute)
	if !errors.Is(err, meta.ErrNoSuchKey) || object == "" {
		return value, err
	}
	switch attribute {
	case etagAttribute:
		if info, statErr := stat(f, bucket, object); statErr == nil && info.Mode().IsRegular() {
			return etagOf(info), nil
		}
	case contentTypeAttribute:
		_, etagErr := m.MetadataStorer.RetrieveAttribute(f, bucket, object, etagAttribute)
		info, statErr := stat(f, bucket, object)
		if errors.Is(etagErr, meta.ErrNoSuchKey) && statErr == nil && info.Mode().IsRegular() {
			return []byte(typeOf(object)), nil
		}
	}
	return value, err
}

// ListAttributes names those that are inferred too, so that they are kept with an object's earlier version.
func (m inferred) ListAttributes(bucket, object string) ([]string, error) {
	names, err := m.MetadataStorer.ListAttributes(bucket, object)
	if err != nil || object == "" || slices.Contains(names, etagAttribute) {
		return names, err
	}
	for _, name := range []string{etagAttribute, contentTypeAttribute} {
		if _, err := m.RetrieveAttribute(nil, bucket, object, name); err == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func stat(f *os.File, bucket, object string) (os.FileInfo, error) {
	if f != nil {
		return f.Stat()
	}
	return os.Stat(filepath.Join(bucket, object))
}

func etagOf(info os.FileInfo) []byte {
	sum := md5.Sum(fmt.Appendf(nil, "%d %d", info.Size(), info.ModTime().UnixNano()))
	return []byte(`"` + hex.EncodeToString(sum[:]) + `-1"`)
}

// typeOf guesses by the end of the name, with the machine's own table where it has one.
func typeOf(key string) string {
	if kind := mime.TypeByExtension(filepath.Ext(key)); kind != "" {
		return kind
	}
	return "application/octet-stream"
}

// openMetadata gives extended attributes if files in the current directory have them, else the side directory. One
// that was used once is used on, since what it holds would be lost.
func openMetadata(sidecar string, completing *completing) (meta.MetadataStorer, error) {
	entries, err := os.ReadDir(sidecar)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	if len(entries) == 0 {
		has, err := hasAttributes()
		if err != nil {
			return nil, err
		}
		if has {
			slog.Info("metadata is kept in extended attributes of the objects' files")
			return inferred{packed{meta.XattrMeta{}, completing}}, nil
		}
	}
	slog.Info("metadata is kept in files in " + sidecar)
	if err := os.MkdirAll(sidecar, privateDir); err != nil {
		return nil, err
	}
	storer, err := newSideDirectory(sidecar)
	return inferred{packed{storer, completing}}, err
}

// hasAttributes tells whether files in the current directory can have extended attributes.
func hasAttributes() (bool, error) {
	file, err := os.CreateTemp(".", ".moorage-probe-")
	if err != nil {
		return false, err
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil {
		return false, err
	}
	err = unix.Fsetxattr(int(file.Fd()), "user.moorage", []byte("1"), 0)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
		return false, nil
	}
	return err == nil, err
}
