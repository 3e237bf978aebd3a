package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
)

const (
	urlEncoding = "url"
	partsCount  = "moorage parts count"
)

var (
	errNotModified        = s3err.GetAPIError(s3err.ErrNotModified)
	errNoSuchKey          = s3err.GetAPIError(s3err.ErrNoSuchKey)
	errPreconditionFailed = s3err.GetAPIError(s3err.ErrPreconditionFailed)
)

// answers is a backend, with what S3 says and the POSIX backend leaves out: empty members of lists, lists that are
// encoded, the ETag of what is not modified, delete markers, and the checksums of parts.
type answers struct {
	backend.Backend
	*store
	*writers
	deletions *sync.Map // by bucket, a mutex
}

var _ backend.Backend = answers{}

func (a answers) ListObjects(ctx context.Context, input *s3.ListObjectsInput) (s3response.ListObjectsResult, error) {
	result, err := a.Backend.ListObjects(ctx, input)
	if err != nil {
		return result, err
	}
	result.Prefix, result.Marker = orEmpty(result.Prefix), orEmpty(result.Marker)
	if isEncoded(ctx) {
		result.EncodingType = urlEncoding
		encode(&result.Delimiter, &result.Marker, &result.NextMarker) // botocore takes this list's Prefix as it is
		encodeKeys(result.Contents, func(each *s3response.Object) **string { return &each.Key })
		encodeKeys(result.CommonPrefixes, prefixOf)
	}
	return result, nil
}

func (a answers) ListObjectsV2(
	ctx context.Context, input *s3.ListObjectsV2Input,
) (s3response.ListObjectsV2Result, error) {
	result, err := a.Backend.ListObjectsV2(ctx, input)
	if err != nil {
		return result, err
	}
	result.Prefix = orEmpty(result.Prefix)
	if query(ctx).Has("continuation-token") {
		result.ContinuationToken = orEmpty(result.ContinuationToken)
	}
	if isEncoded(ctx) {
		result.EncodingType = urlEncoding
		encode(&result.Prefix, &result.Delimiter, &result.StartAfter)
		encodeKeys(result.Contents, func(each *s3response.Object) **string { return &each.Key })
		encodeKeys(result.CommonPrefixes, prefixOf)
	}
	return result, nil
}

func (a answers) ListObjectVersions(
	ctx context.Context, input *s3.ListObjectVersionsInput,
) (s3response.ListVersionsResult, error) {
	result, err := versionsAfter(ctx, a.Backend, input)
	if err != nil {
		return result, err
	}
	result.Prefix, result.KeyMarker = orEmpty(result.Prefix), orEmpty(result.KeyMarker)
	result.VersionIdMarker = orEmpty(result.VersionIdMarker)
	if isEncoded(ctx) {
		result.EncodingType = urlEncoding
		encode(&result.Prefix, &result.Delimiter, &result.KeyMarker, &result.NextKeyMarker)
		encodeKeys(result.Versions, func(each *s3response.ObjectVersion) **string { return &each.Key })
		encodeKeys(result.DeleteMarkers, func(each *types.DeleteMarkerEntry) **string { return &each.Key })
		encodeKeys(result.CommonPrefixes, prefixOf)
	}
	return result, nil
}

func (a answers) ListMultipartUploads(
	ctx context.Context, input *s3.ListMultipartUploadsInput,
) (s3response.ListMultipartUploadsResult, error) {
	result, err := a.Backend.ListMultipartUploads(ctx, input)
	if err == nil && isEncoded(ctx) {
		result.EncodingType = urlEncoding
		for _, value := range []*string{&result.Prefix, &result.Delimiter, &result.KeyMarker, &result.NextKeyMarker} {
			*value = encoded(*value)
		}
		for i := range result.Uploads {
			result.Uploads[i].Key = encoded(result.Uploads[i].Key)
		}
		for i := range result.CommonPrefixes {
			result.CommonPrefixes[i].Prefix = encoded(result.CommonPrefixes[i].Prefix)
		}
	}
	return result, err
}

func (a answers) GetObject(ctx context.Context, input *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	key := input.Key // which the next backend replaces
	input.IfModifiedSince, input.IfUnmodifiedSince = wholeSecond(input.IfModifiedSince), wholeSecond(input.IfUnmodifiedSince)
	result, err := a.Backend.GetObject(ctx, input)
	if errors.Is(err, errNotModified) {
		a.tellUnmodified(ctx, input.Bucket, key, input.VersionId)
	}
	if err == nil && input.PartNumber != nil && input.ChecksumMode == types.ChecksumModeEnabled {
		upload, _ := a.uploadOf(*input.Bucket, *key, result.VersionId, result.ETag) // the object is there without it
		upload.setChecksum(result, int(*input.PartNumber)-1)
	}
	return result, err
}

func (a answers) HeadObject(ctx context.Context, input *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	key := input.Key
	input.IfModifiedSince, input.IfUnmodifiedSince = wholeSecond(input.IfModifiedSince), wholeSecond(input.IfUnmodifiedSince)
	result, err := a.Backend.HeadObject(ctx, input)
	switch {
	case errors.Is(err, errNotModified):
		a.tellUnmodified(ctx, input.Bucket, key, input.VersionId)
	case result == nil && errors.Is(err, errNoSuchKey) && a.isDeleted(*input.Bucket, *key):
		info, statErr := os.Stat(filepath.Join(*input.Bucket, toPath(*key)))
		if statErr == nil {
			isMarker, modified := true, info.ModTime()
			result = &s3.HeadObjectOutput{DeleteMarker: &isMarker, LastModified: &modified}
		}
	case err == nil && input.PartNumber != nil && input.ChecksumMode == types.ChecksumModeEnabled:
		upload, _ := a.uploadOf(*input.Bucket, *key, result.VersionId, result.ETag) // the object is there without it
		upload.setChecksum(result, int(*input.PartNumber)-1)
	}
	return result, err
}

// CopyObject answers as S3 does where the source must not be what it is: a copy is no read, so there is no 304.
func (a answers) CopyObject(
	ctx context.Context, input s3response.CopyObjectInput,
) (s3response.CopyObjectOutput, error) {
	input.CopySourceIfModifiedSince = wholeSecond(input.CopySourceIfModifiedSince)
	input.CopySourceIfUnmodifiedSince = wholeSecond(input.CopySourceIfUnmodifiedSince)
	result, err := a.Backend.CopyObject(ctx, input)
	return result, ofCopy(err)
}

func (a answers) UploadPartCopy(
	ctx context.Context, input *s3.UploadPartCopyInput,
) (s3response.CopyPartResult, error) {
	input.CopySourceIfModifiedSince = wholeSecond(input.CopySourceIfModifiedSince)
	input.CopySourceIfUnmodifiedSince = wholeSecond(input.CopySourceIfUnmodifiedSince)
	result, err := a.Backend.UploadPartCopy(ctx, input)
	return result, ofCopy(err)
}

// wholeSecond gives the last moment of the second that a client has named: what it was told as the time of the last
// modification is that second, while files have a finer time.
func wholeSecond(named *time.Time) *time.Time {
	if named == nil {
		return nil
	}
	end := named.Truncate(time.Second).Add(time.Second - 1)
	return &end
}

func ofCopy(err error) error {
	if errors.Is(err, errNotModified) {
		return errPreconditionFailed
	}
	return err
}

// PutObjectTagging answers as S3 does where the tags do not fit.
func (a answers) PutObjectTagging(ctx context.Context, bucket, object, version string, tags map[string]string) error {
	err := a.Backend.PutObjectTagging(ctx, bucket, object, version, tags)
	var known s3err.S3Error
	if errors.As(err, &known) {
		return known
	}
	return err
}

// PutObject takes any ETag in If-None-Match, and `*` in If-Match, as HTTP has them. The POSIX backend does not.
func (a answers) PutObject(
	ctx context.Context, input s3response.PutObjectInput,
) (s3response.PutObjectOutput, error) {
	var err error
	input.IfMatch, input.IfNoneMatch, err = a.conditions(ctx, input.Bucket, input.Key, input.IfMatch, input.IfNoneMatch)
	if err != nil {
		return s3response.PutObjectOutput{}, err
	}
	return a.Backend.PutObject(ctx, input)
}

// CompleteMultipartUpload does the same, keeps the checksums of the parts, and tells the object's also when it is asked
// for once more.
func (a answers) CompleteMultipartUpload(
	ctx context.Context, input *s3.CompleteMultipartUploadInput,
) (s3response.CompleteMultipartUploadResult, string, error) {
	key := input.Key
	var err error
	input.IfMatch, input.IfNoneMatch, err = a.conditions(ctx, input.Bucket, key, input.IfMatch, input.IfNoneMatch)
	if err != nil {
		return s3response.CompleteMultipartUploadResult{}, "", err
	}
	mostListed := int32(mostParts)
	if listed, err := a.Backend.ListParts(ctx, &s3.ListPartsInput{
		Bucket: input.Bucket, Key: key, UploadId: input.UploadId, MaxParts: &mostListed,
	}); err == nil && input.MultipartUpload != nil {
		a.completing.Store(*input.UploadId, checksumsOf(listed, input.MultipartUpload.Parts))
		defer a.completing.Delete(*input.UploadId)
	}
	result, version, err := a.Backend.CompleteMultipartUpload(ctx, input)
	if err != nil || result.ChecksumType != nil {
		return result, version, err
	}
	head, headErr := a.Backend.HeadObject(ctx, &s3.HeadObjectInput{
		Bucket: input.Bucket, Key: key, ChecksumMode: types.ChecksumModeEnabled,
	})
	if headErr == nil && *head.ETag == *result.ETag {
		result.ChecksumType = &head.ChecksumType
		result.ChecksumCRC32, result.ChecksumCRC32C = head.ChecksumCRC32, head.ChecksumCRC32C
		result.ChecksumCRC64NVME = head.ChecksumCRC64NVME
		result.ChecksumSHA1, result.ChecksumSHA256 = head.ChecksumSHA1, head.ChecksumSHA256
	}
	return result, version, nil
}

// conditions translates `*` in If-Match, and an ETag in If-None-Match, into a condition that the backend decides
// together with the write: that there is no object, or that it is the one which is there now. An object whose latest
// version is a delete marker is none, which the backend takes for one.
func (a answers) conditions(
	ctx context.Context, bucket, key, ifMatch, ifNoneMatch *string,
) (match, noneMatch *string, err error) {
	if (ifMatch != nil || ifNoneMatch != nil) && a.isDeleted(*bucket, *key) {
		if ifMatch != nil {
			return nil, nil, errNoSuchKey
		}
		last, err := a.metadata.RetrieveAttribute(nil, *bucket, toPath(*key), etagAttribute) // still there
		current := strings.Trim(string(last), `"`)
		return &current, nil, err
	}
	anyETag := "*"
	mustExist := ifMatch != nil && *ifMatch == anyETag
	mustDiffer := ifNoneMatch != nil && *ifNoneMatch != anyETag
	if mustExist == mustDiffer || ifMatch != nil && ifNoneMatch != nil {
		return ifMatch, ifNoneMatch, nil
	}
	head, err := a.Backend.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: key})
	if mustDiffer && errors.Is(err, errNoSuchKey) {
		return nil, &anyETag, nil
	}
	if err != nil {
		return nil, nil, err
	}
	current := strings.Trim(*head.ETag, `"`)
	if mustDiffer && current == strings.Trim(*ifNoneMatch, `"`) {
		return nil, nil, errPreconditionFailed
	}
	return &current, nil, nil
}

// DeleteObject makes delete markers for keys that there never were, too. The POSIX backend does not.
func (a answers) DeleteObject(ctx context.Context, input *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	versioning, end := a.deleteAlone(ctx, *input.Bucket)
	defer end()
	isConditional := input.IfMatch != nil || input.IfMatchLastModifiedTime != nil || input.IfMatchSize != nil
	if orNone(input.VersionId) == "" && !isConditional {
		if result, err := a.mark(*input.Bucket, *input.Key, versioning); result != nil || err != nil {
			return result, err
		}
	}
	return a.Backend.DeleteObject(ctx, input)
}

// DeleteObjects does the same for each of the objects.
func (a answers) DeleteObjects(ctx context.Context, input *s3.DeleteObjectsInput) (s3response.DeleteResult, error) {
	versioning, end := a.deleteAlone(ctx, *input.Bucket)
	defer end()
	var marked s3response.DeleteResult
	input.Delete.Objects = slices.DeleteFunc(input.Delete.Objects, func(each types.ObjectIdentifier) bool {
		if orNone(each.VersionId) != "" {
			return false
		}
		result, err := a.mark(*input.Bucket, *each.Key, versioning)
		if err != nil {
			marked.Error = append(marked.Error, s3err.ObjectDeleteError(each.Key, each.VersionId, err))
		} else if result != nil {
			marked.Deleted = append(marked.Deleted, types.DeletedObject{
				Key: each.Key, DeleteMarker: result.DeleteMarker, DeleteMarkerVersionId: result.VersionId,
			})
		}
		return result != nil || err != nil
	})
	result, err := a.Backend.DeleteObjects(ctx, input)
	result.Deleted = append(marked.Deleted, result.Deleted...)
	result.Error = append(marked.Error, result.Error...)
	return result, err
}

// deleteAlone waits for the other deletions in a bucket with versions, and returns what lets the next begin: where a
// version is deleted, the backend moves the one before it to its place, and two that do so at once fail.
func (a answers) deleteAlone(
	ctx context.Context, bucket string,
) (versioning types.BucketVersioningStatus, end func()) {
	configured, err := a.Backend.GetBucketVersioning(ctx, bucket)
	if err != nil || configured.Status == nil {
		return "", func() {}
	}
	known, _ := a.deletions.LoadOrStore(bucket, new(sync.Mutex))
	mutex := known.(*sync.Mutex)
	mutex.Lock()
	return *configured.Status, mutex.Unlock
}

// GetObjectAttributes adds the parts of an object.
func (a answers) GetObjectAttributes(
	ctx context.Context, input *s3.GetObjectAttributesInput,
) (s3response.GetObjectAttributesResponse, error) {
	key := input.Key
	result, err := a.Backend.GetObjectAttributes(ctx, input)
	if err != nil {
		return result, err
	}
	upload, err := a.uploadOf(*input.Bucket, *key, result.VersionId, result.ETag)
	if err != nil || len(upload.Parts) == 0 {
		return result, err
	}
	if request, ok := ctx.(*fasthttp.RequestCtx); ok {
		request.SetUserValue(partsCount, len(upload.Parts))
	}
	result.ObjectParts = partsAfter(upload, input.PartNumberMarker, input.MaxParts)
	return result, nil
}

// uploadOf gives the upload that a version of an object was made by, which has no parts where there was none, or the
// object is another by now. The version may be missing where it is the latest.
func (a answers) uploadOf(bucket, key string, version, etag *string) (upload, error) {
	path := toPath(key)
	latest, err := a.metadata.RetrieveAttribute(nil, bucket, path, versionAttribute)
	if err != nil {
		latest = []byte(nullVersion)
	}
	if named := orNone(version); named != "" && named != string(latest) {
		bucket, path = filepath.Join(a.versions, bucket), filepath.Join(versionsDirectory(path), named)
	}
	value, err := a.metadata.RetrieveAttribute(nil, bucket, path, partsAttribute)
	if errors.Is(err, meta.ErrNoSuchKey) || errors.Is(err, fs.ErrNotExist) {
		return upload{}, nil
	}
	if err != nil {
		return upload{}, err
	}
	current, err := a.metadata.RetrieveAttribute(nil, bucket, path, etagAttribute)
	if err != nil || strings.Trim(string(current), `"`) != strings.Trim(orNone(etag), `"`) {
		return upload{}, nil
	}
	return unmarshalUpload(value)
}

// partsAfter lists so many parts of an upload, from the one after the marker on.
func partsAfter(upload upload, marker *string, most *int32) *s3response.ObjectParts {
	ends := upload.Parts
	result := &s3response.ObjectParts{MaxParts: 1000}
	if most != nil {
		result.MaxParts = int(*most)
	}
	if marker != nil {
		number, _ := strconv.Atoi(*marker) // none is 0
		result.PartNumberMarker = max(number, 0)
	}
	last := min(result.PartNumberMarker+result.MaxParts, len(ends))
	for i := result.PartNumberMarker; i < last; i++ {
		number, size := int32(i+1), ends[i]
		if i > 0 {
			size -= ends[i-1]
		}
		part := types.ObjectPart{PartNumber: &number, Size: &size}
		upload.setChecksum(&part, i)
		result.Parts = append(result.Parts, part)
	}
	result.NextPartNumberMarker, result.IsTruncated = last, last < len(ends)
	return result
}

// tellUnmodified adds the headers that the reply 304 has as well as the object itself.
func (a answers) tellUnmodified(ctx context.Context, bucket, key, version *string) {
	head, err := a.Backend.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: key, VersionId: version})
	if request, ok := ctx.(*fasthttp.RequestCtx); ok && err == nil {
		request.Response.Header.Set("ETag", *head.ETag)
		request.Response.Header.SetLastModified(*head.LastModified)
	}
}

// isDeleted tells whether the latest version of an object is a delete marker.
func (a answers) isDeleted(bucket, key string) bool {
	_, err := a.metadata.RetrieveAttribute(nil, bucket, toPath(key), deleteMarkerAttribute)
	return err == nil
}

// amend is run around every request. It sorts tags, which versitygw takes from a map, by their keys, and adds the number
// of an object's parts to its attributes.
func amend(ctx fiber.Ctx) error {
	if err := ctx.Next(); err != nil {
		return err
	}
	response := ctx.Response()
	if ctx.Method() != http.MethodGet || response.StatusCode() != http.StatusOK {
		return nil
	}
	if count, known := ctx.RequestCtx().UserValue(partsCount).(int); known {
		element := fmt.Appendf(nil, "<ObjectParts><PartsCount>%d</PartsCount>", count)
		response.SetBody(bytes.Replace(response.Body(), []byte("<ObjectParts>"), element, 1))
	}
	if query(ctx.RequestCtx()).Has("tagging") {
		return sortTags(response)
	}
	return nil
}

func sortTags(response *fasthttp.Response) error {
	var tagging s3response.Tagging
	if err := xml.Unmarshal(response.Body(), &tagging); err != nil {
		return err
	}
	slices.SortFunc(tagging.TagSet.Tags, func(a, b s3response.Tag) int { return cmp.Compare(a.Key, b.Key) })
	sorted := bytes.NewBufferString(xml.Header)
	if err := xml.NewEncoder(sorted).Encode(tagging); err != nil {
		return err
	}
	response.SetBody(sorted.Bytes())
	return nil
}

func query(ctx context.Context) *fasthttp.Args {
	if request, ok := ctx.(*fasthttp.RequestCtx); ok {
		return request.QueryArgs()
	}
	return &fasthttp.Args{}
}

// isEncoded tells whether the keys of a list are to be encoded, so that every key is possible in XML.
func isEncoded(ctx context.Context) bool {
	return string(query(ctx).Peek("encoding-type")) == urlEncoding
}

func prefixOf(each *types.CommonPrefix) **string { return &each.Prefix }

func encodeKeys[T any](list []T, key func(*T) **string) {
	for i := range list {
		encode(key(&list[i]))
	}
}

// encode replaces texts, which other members may share.
func encode(values ...**string) {
	for _, value := range values {
		if *value != nil {
			text := encoded(**value)
			*value = &text
		}
	}
}

func encoded(text string) string { return asInURL.Replace(url.QueryEscape(text)) }

// Slashes stay as they are. A space can be read as %20 by clients that take a plus for what it is.
var asInURL = strings.NewReplacer("+", "%20", "%2F", "/")

func orNone(value *string) string { return backend.GetStringFromPtr(value) }

func orEmpty(value *string) *string {
	if value == nil {
		value = new(string)
	}
	return value
}
