package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3response"
)

// entry is one of a list of versions: a version, a delete marker, or what several keys begin with.
type entry struct {
	key, version string
	isLatest     bool
	modified     time.Time
	object       *s3response.ObjectVersion
	marker       *types.DeleteMarkerEntry
	prefix       *types.CommonPrefix
}

// versionsAfter lists what follows the markers. The POSIX backend by itself begins with the markers' own version if it
// is the latest of its key, or `null`, and leaves out versions of other keys after a page that ends within one key. So
// it is asked for whole keys, and the page is cut here.
func versionsAfter(
	ctx context.Context, next backend.Backend, input *s3.ListObjectVersionsInput,
) (s3response.ListVersionsResult, error) {
	key, version, most := *input.KeyMarker, *input.VersionIdMarker, *input.MaxKeys
	var entries []entry
	ofMarker := 0
	if key != "" {
		all, err := versionsOf(ctx, next, input.Bucket, key)
		if err != nil {
			return s3response.ListVersionsResult{}, err
		}
		ofMarker = len(all)
		at := slices.IndexFunc(all, func(each entry) bool { return each.version == version })
		if version != "" && at >= 0 {
			entries = all[at+1:]
		}
	}
	result, err := versionsFrom(ctx, next, *input, most+1+int32(ofMarker))
	if err != nil {
		return result, err
	}
	cut := "" // the key within which the backend's list ends
	if *result.IsTruncated {
		cut = *result.NextKeyMarker
	}
	for _, each := range entriesOf(result) {
		if toPath(each.key) > toPath(key) && each.key != cut {
			entries = append(entries, each)
		}
	}
	if cut != "" && toPath(cut) > toPath(key) {
		all, err := versionsOf(ctx, next, input.Bucket, cut)
		if err != nil {
			return result, err
		}
		entries = append(entries, all...)
	}
	slices.SortFunc(entries, compareEntries)
	isTruncated := most > 0 && len(entries) > int(most)
	entries = entries[:min(len(entries), int(most))]
	result.Versions, result.DeleteMarkers, result.CommonPrefixes = nil, nil, nil
	for _, each := range entries {
		switch {
		case each.object != nil:
			result.Versions = append(result.Versions, *each.object)
		case each.marker != nil:
			result.DeleteMarkers = append(result.DeleteMarkers, *each.marker)
		default:
			result.CommonPrefixes = append(result.CommonPrefixes, *each.prefix)
		}
	}
	result.KeyMarker, result.VersionIdMarker, result.MaxKeys = &key, &version, &most
	result.IsTruncated, result.NextKeyMarker, result.NextVersionIdMarker = &isTruncated, nil, nil
	if isTruncated {
		last := entries[len(entries)-1]
		result.NextKeyMarker = &last.key
		if last.prefix == nil {
			result.NextVersionIdMarker = &last.version
		}
	}
	return result, nil
}

// versionsOf lists all versions of one key, the latest first.
func versionsOf(ctx context.Context, next backend.Backend, bucket *string, key string) ([]entry, error) {
	none := ""
	asked := s3.ListObjectVersionsInput{Bucket: bucket, Prefix: &key, Delimiter: &none, KeyMarker: &none}
	for most := int32(1000); ; most *= 2 {
		result, err := versionsFrom(ctx, next, asked, most)
		if err != nil {
			return nil, err
		}
		entries := slices.DeleteFunc(entriesOf(result), func(each entry) bool { return each.key != key })
		if !*result.IsTruncated || *result.NextKeyMarker != key {
			slices.SortFunc(entries, compareEntries)
			return entries, nil
		}
	}
}

// versionsFrom lists so many entries, from the first version of the marker's key on.
func versionsFrom(
	ctx context.Context, next backend.Backend, input s3.ListObjectVersionsInput, most int32,
) (s3response.ListVersionsResult, error) {
	none := ""
	input.VersionIdMarker, input.MaxKeys = &none, &most
	return next.ListObjectVersions(ctx, &input)
}

func entriesOf(result s3response.ListVersionsResult) []entry {
	var entries []entry
	for i := range result.Versions {
		each := &result.Versions[i]
		entries = append(entries, entry{
			key: *each.Key, version: *each.VersionId, isLatest: *each.IsLatest, modified: *each.LastModified, object: each,
		})
	}
	for i := range result.DeleteMarkers {
		each := &result.DeleteMarkers[i]
		entries = append(entries, entry{
			key: *each.Key, version: *each.VersionId, isLatest: *each.IsLatest, modified: *each.LastModified, marker: each,
		})
	}
	for i := range result.CommonPrefixes {
		entries = append(entries, entry{key: *result.CommonPrefixes[i].Prefix, prefix: &result.CommonPrefixes[i]})
	}
	return entries
}

// compareEntries puts keys in their order, and the latest version of each first.
func compareEntries(a, b entry) int {
	if a.key == b.key && a.isLatest != b.isLatest {
		if a.isLatest {
			return -1
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(toPath(a.key), toPath(b.key)),
		b.modified.Compare(a.modified),
		cmp.Compare(b.version, a.version),
	)
}
