package main

import (
	"context"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
)

// buckets is a backend in which no bucket is deleted while an object is being written to it. The POSIX backend looks
// whether a bucket is empty, and then removes everything in it: an object that came in between would be lost.
type buckets struct {
	backend.Backend
	*writers
}

// writers counts those of each bucket.
type writers struct {
	mutex    sync.Mutex
	ended    *sync.Cond
	writing  map[string]int
	deleting map[string]bool
}

func newWriters() *writers {
	w := &writers{writing: map[string]int{}, deleting: map[string]bool{}}
	w.ended = sync.NewCond(&w.mutex)
	return w
}

// begin waits until nobody deletes the bucket. The writer calls what it returns at its end.
func (w *writers) begin(bucket *string) func() {
	name := *bucket
	w.mutex.Lock()
	defer w.mutex.Unlock()
	for w.deleting[name] {
		w.ended.Wait()
	}
	w.writing[name]++
	return func() {
		w.mutex.Lock()
		defer w.mutex.Unlock()
		if w.writing[name]--; w.writing[name] == 0 {
			delete(w.writing, name)
		}
	}
}

// beginDeletion tells whether nobody writes to the bucket, and keeps it so until endDeletion.
func (w *writers) beginDeletion(bucket string) bool {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.writing[bucket] > 0 || w.deleting[bucket] {
		return false
	}
	w.deleting[bucket] = true
	return true
}

func (w *writers) endDeletion(bucket string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	delete(w.deleting, bucket)
	w.ended.Broadcast()
}

func (b buckets) DeleteBucket(ctx context.Context, bucket string) error {
	if !b.beginDeletion(bucket) {
		return s3err.GetBucketErr(s3err.ErrBucketNotEmpty, bucket)
	}
	defer b.endDeletion(bucket)
	return b.Backend.DeleteBucket(ctx, bucket)
}

func (b buckets) PutObject(ctx context.Context, input s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	defer b.begin(input.Bucket)()
	return b.Backend.PutObject(ctx, input)
}

func (b buckets) CopyObject(
	ctx context.Context, input s3response.CopyObjectInput,
) (s3response.CopyObjectOutput, error) {
	defer b.begin(input.Bucket)()
	return b.Backend.CopyObject(ctx, input)
}

func (b buckets) CompleteMultipartUpload(
	ctx context.Context, input *s3.CompleteMultipartUploadInput,
) (s3response.CompleteMultipartUploadResult, string, error) {
	defer b.begin(input.Bucket)()
	return b.Backend.CompleteMultipartUpload(ctx, input)
}
