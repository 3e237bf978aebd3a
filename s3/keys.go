package main

import (
	"context"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
)

// escape begins the name of a file or directory for a part of a key that cannot be one. It sorts where a slash does:
// after every other name that begins with a dot, and before a zero. So lists keep S3's order of keys with empty parts.
const escape = ".\U0010FFFF"

// longestName is that of a file or directory, in bytes.
const longestName = 255

// isUploadID tells what the POSIX backend names uploads with (UUID). It makes the name part of a path without a look at
// it: an upload `../../x` is any directory, of other buckets and beside them.
var isUploadID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString

func checkUpload(id *string) error {
	if id != nil && !isUploadID(*id) {
		return s3err.GetNoSuchUploadErr(*id)
	}
	return nil
}

// keys is a backend in which every key is a key of its own: `a//b`, `/a` and `a/./b` are not `a/b`, as they are for a
// file system, and what the backend keeps for itself is no object. Of a slash at the end it takes care by itself.
type keys struct{ backend.Backend }

func isEscaped(part string) bool {
	switch part {
	case "", ".", "..", posix.MetaTmpDir:
		return true
	}
	return strings.HasPrefix(part, escape)
}

// toPath gives the path of a key.
func toPath(key string) string {
	if key == "" {
		return ""
	}
	parts := strings.Split(key, "/")
	for i, part := range parts {
		if isEscaped(part) && (part != "" || i < len(parts)-1) {
			parts[i] = escape + part
		}
	}
	return strings.Join(parts, "/")
}

// toNewPath gives the path of a key that is written to.
func toNewPath(key *string) (*string, error) {
	path := change(key, toPath)
	if path != nil && slices.ContainsFunc(strings.Split(*path, "/"), func(name string) bool { return len(name) > longestName }) {
		return nil, s3err.GetKeyTooLongErr(int64(len(*key)), longestName)
	}
	return path, nil
}

// toPathPrefix gives what the paths of keys with a prefix begin with. Its last part need not be whole. (Paths of keys
// in which it goes on to be `..` or the backend's own are not found by it.)
func toPathPrefix(prefix string) string {
	whole := strings.LastIndex(prefix, "/") + 1
	rest := prefix[whole:]
	if strings.HasPrefix(rest, escape) {
		rest = escape + rest
	}
	return toPath(prefix[:whole]) + rest
}

// toKey undoes toPath.
func toKey(path string) string {
	if !strings.Contains(path, escape) {
		return path
	}
	parts := strings.Split(path, "/")
	for i, part := range parts {
		parts[i] = strings.TrimPrefix(part, escape)
	}
	return strings.Join(parts, "/")
}

// change applies a translation to a text that may be missing.
func change(text *string, translate func(string) string) *string {
	if text == nil {
		return nil
	}
	changed := translate(*text)
	return &changed
}

// toSourcePath translates the key in the header x-amz-copy-source, which is escaped as in URLs.
func toSourcePath(source string) string {
	bucket, key, version, err := backend.ParseCopySource(source)
	if err != nil || toPath(key) == key {
		return source
	}
	source = bucket + "/" + toPath(key)
	if version != "" {
		source += "?versionId=" + version
	}
	return url.QueryEscape(source)
}

func (k keys) NormalizeObjectKey(_, object string) string { return object }

func (k keys) PutObject(ctx context.Context, in s3response.PutObjectInput) (out s3response.PutObjectOutput, err error) {
	if in.Key, err = toNewPath(in.Key); err != nil {
		return out, err
	}
	in.Body = whole(in.Body, in.ContentLength)
	return k.Backend.PutObject(ctx, in)
}

func (k keys) HeadObject(ctx context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	in.Key = change(in.Key, toPath)
	return k.Backend.HeadObject(ctx, in)
}

func (k keys) GetObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	in.Key = change(in.Key, toPath)
	return k.Backend.GetObject(ctx, in)
}

func (k keys) GetObjectAttributes(ctx context.Context, in *s3.GetObjectAttributesInput) (s3response.GetObjectAttributesResponse, error) {
	in.Key = change(in.Key, toPath)
	return k.Backend.GetObjectAttributes(ctx, in)
}

func (k keys) CopyObject(ctx context.Context, in s3response.CopyObjectInput) (out s3response.CopyObjectOutput, err error) {
	if in.Key, err = toNewPath(in.Key); err != nil {
		return out, err
	}
	in.CopySource = change(in.CopySource, toSourcePath)
	return k.Backend.CopyObject(ctx, in)
}

func (k keys) DeleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	in.Key = change(in.Key, toPath)
	return k.Backend.DeleteObject(ctx, in)
}

func (k keys) DeleteObjects(ctx context.Context, in *s3.DeleteObjectsInput) (s3response.DeleteResult, error) {
	for i := range in.Delete.Objects {
		in.Delete.Objects[i].Key = change(in.Delete.Objects[i].Key, toPath)
	}
	out, err := k.Backend.DeleteObjects(ctx, in)
	for i := range out.Deleted {
		out.Deleted[i].Key = change(out.Deleted[i].Key, toKey)
	}
	for i := range out.Error {
		out.Error[i].Key = change(out.Error[i].Key, toKey)
	}
	return out, err
}

func (k keys) GetObjectTagging(ctx context.Context, bucket, key, version string) (map[string]string, error) {
	return k.Backend.GetObjectTagging(ctx, bucket, toPath(key), version)
}

func (k keys) PutObjectTagging(ctx context.Context, bucket, key, version string, tags map[string]string) error {
	return k.Backend.PutObjectTagging(ctx, bucket, toPath(key), version, tags)
}

func (k keys) DeleteObjectTagging(ctx context.Context, bucket, key, version string) error {
	return k.Backend.DeleteObjectTagging(ctx, bucket, toPath(key), version)
}

func (k keys) PutObjectRetention(ctx context.Context, bucket, key, version string, retention []byte) error {
	return k.Backend.PutObjectRetention(ctx, bucket, toPath(key), version, retention)
}

func (k keys) GetObjectRetention(ctx context.Context, bucket, key, version string) ([]byte, error) {
	return k.Backend.GetObjectRetention(ctx, bucket, toPath(key), version)
}

func (k keys) PutObjectLegalHold(ctx context.Context, bucket, key, version string, status bool) error {
	return k.Backend.PutObjectLegalHold(ctx, bucket, toPath(key), version, status)
}

func (k keys) GetObjectLegalHold(ctx context.Context, bucket, key, version string) (*bool, error) {
	return k.Backend.GetObjectLegalHold(ctx, bucket, toPath(key), version)
}

func (k keys) CreateMultipartUpload(ctx context.Context, in s3response.CreateMultipartUploadInput) (out s3response.InitiateMultipartUploadResult, err error) {
	if in.Key, err = toNewPath(in.Key); err != nil {
		return out, err
	}
	out, err = k.Backend.CreateMultipartUpload(ctx, in)
	out.Key = toKey(out.Key)
	return out, err
}

func (k keys) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (s3response.CompleteMultipartUploadResult, string, error) {
	if err := checkUpload(in.UploadId); err != nil {
		return s3response.CompleteMultipartUploadResult{}, "", err
	}
	in.Key = change(in.Key, toPath)
	out, version, err := k.Backend.CompleteMultipartUpload(ctx, in)
	out.Key = change(out.Key, toKey)
	return out, version, err
}

func (k keys) AbortMultipartUpload(ctx context.Context, in *s3.AbortMultipartUploadInput) error {
	if err := checkUpload(in.UploadId); err != nil {
		return err
	}
	in.Key = change(in.Key, toPath)
	return k.Backend.AbortMultipartUpload(ctx, in)
}

func (k keys) ListParts(ctx context.Context, in *s3.ListPartsInput) (s3response.ListPartsResult, error) {
	if err := checkUpload(in.UploadId); err != nil {
		return s3response.ListPartsResult{}, err
	}
	in.Key = change(in.Key, toPath)
	out, err := k.Backend.ListParts(ctx, in)
	out.Key = toKey(out.Key)
	return out, err
}

func (k keys) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	if err := checkUpload(in.UploadId); err != nil {
		return nil, err
	}
	in.Key = change(in.Key, toPath)
	in.Body = whole(in.Body, in.ContentLength)
	return k.Backend.UploadPart(ctx, in)
}

func (k keys) UploadPartCopy(ctx context.Context, in *s3.UploadPartCopyInput) (s3response.CopyPartResult, error) {
	if err := checkUpload(in.UploadId); err != nil {
		return s3response.CopyPartResult{}, err
	}
	in.Key, in.CopySource = change(in.Key, toPath), change(in.CopySource, toSourcePath)
	return k.Backend.UploadPartCopy(ctx, in)
}

func (k keys) ListObjects(ctx context.Context, in *s3.ListObjectsInput) (s3response.ListObjectsResult, error) {
	prefix := in.Prefix
	in.Prefix, in.Marker = change(prefix, toPathPrefix), change(in.Marker, toPath)
	out, err := k.Backend.ListObjects(ctx, in)
	out.Prefix, out.Marker, out.NextMarker = change(out.Prefix, toKey), change(out.Marker, toKey), change(out.NextMarker, toKey)
	out.Contents, out.CommonPrefixes = objects(out.Contents, prefix), commonPrefixes(out.CommonPrefixes, prefix)
	return out, err
}

func (k keys) ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input) (s3response.ListObjectsV2Result, error) {
	prefix := in.Prefix
	in.Prefix, in.StartAfter = change(prefix, toPathPrefix), change(in.StartAfter, toPath)
	in.ContinuationToken = change(in.ContinuationToken, toPath)
	out, err := k.Backend.ListObjectsV2(ctx, in)
	out.Prefix, out.StartAfter = change(out.Prefix, toKey), change(out.StartAfter, toKey)
	out.ContinuationToken = change(out.ContinuationToken, toKey)
	out.NextContinuationToken = change(out.NextContinuationToken, toKey)
	out.Contents, out.CommonPrefixes = objects(out.Contents, prefix), commonPrefixes(out.CommonPrefixes, prefix)
	if out.KeyCount != nil {
		*out.KeyCount = int32(len(out.Contents) + len(out.CommonPrefixes))
	}
	return out, err
}

func (k keys) ListObjectVersions(ctx context.Context, in *s3.ListObjectVersionsInput) (s3response.ListVersionsResult, error) {
	prefix := in.Prefix
	in.Prefix, in.KeyMarker = change(prefix, toPathPrefix), change(in.KeyMarker, toPath)
	out, err := k.Backend.ListObjectVersions(ctx, in)
	out.Prefix, out.KeyMarker = change(out.Prefix, toKey), change(out.KeyMarker, toKey)
	out.NextKeyMarker = change(out.NextKeyMarker, toKey)
	out.CommonPrefixes = commonPrefixes(out.CommonPrefixes, prefix)
	out.Versions = listed(out.Versions, prefix, func(version *s3response.ObjectVersion) **string { return &version.Key })
	out.DeleteMarkers = listed(out.DeleteMarkers, prefix, func(marker *types.DeleteMarkerEntry) **string { return &marker.Key })
	return out, err
}

func (k keys) ListMultipartUploads(ctx context.Context, in *s3.ListMultipartUploadsInput) (s3response.ListMultipartUploadsResult, error) {
	prefix := in.Prefix
	in.Prefix, in.KeyMarker = change(prefix, toPathPrefix), change(in.KeyMarker, toPath)
	out, err := k.Backend.ListMultipartUploads(ctx, in)
	out.Prefix, out.KeyMarker, out.NextKeyMarker = toKey(out.Prefix), toKey(out.KeyMarker), toKey(out.NextKeyMarker)
	for i := range out.Uploads {
		out.Uploads[i].Key = toKey(out.Uploads[i].Key)
	}
	for i := range out.CommonPrefixes {
		out.CommonPrefixes[i].Prefix = toKey(out.CommonPrefixes[i].Prefix)
	}
	return out, err
}

func objects(entries []s3response.Object, prefix *string) []s3response.Object {
	return listed(entries, prefix, func(object *s3response.Object) **string { return &object.Key })
}

func commonPrefixes(entries []types.CommonPrefix, prefix *string) []types.CommonPrefix {
	return listed(entries, prefix, func(common *types.CommonPrefix) **string { return &common.Prefix })
}

// listed gives the entries of a list with the keys of their paths, without those whose key has not the prefix that
// their path has: of `a/.`, the path of `a//b` is one.
func listed[Entry any](entries []Entry, prefix *string, keyOf func(*Entry) **string) []Entry {
	left := entries[:0]
	for _, entry := range entries {
		key := keyOf(&entry)
		*key = change(*key, toKey)
		if prefix == nil || *key == nil || strings.HasPrefix(**key, *prefix) {
			left = append(left, entry)
		}
	}
	return left
}
