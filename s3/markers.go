package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/oklog/ulid/v2"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
	"golang.org/x/sys/unix"
)

const (
	nullVersion  = "null"
	mostAttempts = 100
)

// mark makes a delete marker for a key that there never was, in a bucket with versions. The result is nil where the
// POSIX backend answers right.
func (a answers) mark(
	bucket, key string, versioning types.BucketVersioningStatus,
) (*s3.DeleteObjectOutput, error) {
	if versioning == "" || strings.HasSuffix(key, "/") { // such keys have no versions
		return nil, nil
	}
	defer a.begin(&bucket)() // it has been there, and may be deleted meanwhile
	if _, err := os.Stat(bucket); err != nil {
		return nil, s3err.GetBucketErr(s3err.ErrNoSuchBucket, bucket)
	}
	path := toPath(key)
	if info, err := os.Lstat(filepath.Join(bucket, path)); err == nil && info.IsDir() {
		return new(s3.DeleteObjectOutput), nil // there is no such object, nor can there be one
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	temporary := filepath.Join(bucket, posix.MetaTmpDir)
	if err := os.Mkdir(temporary, privateDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	file, err := os.CreateTemp(temporary, "")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := a.metadata.StoreAttribute(file, bucket, path, deleteMarkerAttribute, nil); err != nil {
		return nil, err
	}
	isMarker, version := true, nullVersion
	if versioning == types.BucketVersioningStatusEnabled {
		version = ulid.Make().String()
		if err := a.metadata.StoreAttribute(file, bucket, path, versionAttribute, []byte(version)); err != nil {
			return nil, err
		}
	}
	if err := linkBelow(file.Name(), filepath.Join(bucket, path)); err != nil {
		if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENAMETOOLONG) {
			err = nil
		}
		return nil, err
	}
	return &s3.DeleteObjectOutput{DeleteMarker: &isMarker, VersionId: &version}, nil
}

// linkBelow links a file, and makes the directories above it, which deletions of others may remove meanwhile.
func linkBelow(from, to string) error {
	var err error
	for range mostAttempts {
		if err = os.MkdirAll(filepath.Dir(to), privateDir); err != nil {
			return err
		}
		if err = os.Link(from, to); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

// versionsDirectory is where the POSIX backend keeps the earlier versions of what is at a path, below the bucket's
// directory of versions.
func versionsDirectory(path string) string {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(path)))
	return filepath.Join(sum[:2], sum[2:4], sum[4:6], sum)
}
