package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/versity/versitygw/backend/meta"
	"golang.org/x/sys/unix"
)

// ofFile begins the name of the directory that has the attributes of one file.
const ofFile = ".moorage-file-"

// mostBeingRenamed is how many names are kept before those that were renamed are looked for.
const mostBeingRenamed = 1024

// sideDirectory keeps attributes in files of a directory, by the path of the object, and by which file it is: those of a
// file that is renamed to the path are there when it is, and those of the file before it are not. By the path alone,
// an object would have what the one that it replaces had, and versions of an object could not be told apart.
type sideDirectory struct {
	meta.SideCar
	root    string
	written *beingRenamed
}

// beingRenamed has the names of files that got attributes, until they have been renamed to the path of their object, by
// where their attributes are.
type beingRenamed struct {
	mutex sync.Mutex
	names map[string]string
}

func newSideDirectory(root string) (sideDirectory, error) {
	storer, err := meta.NewSideCar(root)
	return sideDirectory{storer, root, &beingRenamed{names: map[string]string{}}}, err
}

func (d sideDirectory) RetrieveAttribute(f *os.File, bucket, object, attribute string) ([]byte, error) {
	return d.SideCar.RetrieveAttribute(f, bucket, d.place(f, bucket, object), attribute)
}

func (d sideDirectory) StoreAttribute(f *os.File, bucket, object, attribute string, value []byte) error {
	if f == nil {
		return d.SideCar.StoreAttribute(f, bucket, d.place(nil, bucket, object), attribute, value)
	}
	place := placeOf(f, bucket, object)
	if !d.written.is(filepath.Join(bucket, place), f.Name()) {
		d.forget(bucket, object) // also what is at this place, where a file system gives the numbers of files again
		d.written.add(filepath.Join(bucket, place), f.Name())
	}
	return d.SideCar.StoreAttribute(f, bucket, place, attribute, value)
}

func (d sideDirectory) DeleteAttribute(bucket, object, attribute string) error {
	return d.SideCar.DeleteAttribute(bucket, d.place(nil, bucket, object), attribute)
}

func (d sideDirectory) ListAttributes(bucket, object string) ([]string, error) {
	return d.SideCar.ListAttributes(bucket, d.place(nil, bucket, object))
}

func (d sideDirectory) DeleteAttributes(bucket, object string) error {
	d.forget(bucket, object)
	return d.SideCar.DeleteAttributes(bucket, object)
}

// place gives where the attributes of an object are. Where all was copied from another disk, files are others than they
// were: they have the attributes of the latest that was at their path.
func (d sideDirectory) place(f *os.File, bucket, object string) string {
	own := placeOf(f, bucket, object)
	if own != object {
		if _, err := os.Stat(filepath.Join(d.root, bucket, own)); err != nil {
			return cmp.Or(d.latest(bucket, object), own)
		}
	}
	return own
}

// placeOf gives the path of an object, with which file it is, or would be when a new file is renamed to it. Directories
// are not replaced, so a path is enough for them.
func placeOf(f *os.File, bucket, object string) string {
	var file unix.Statx_t
	mask := unix.STATX_TYPE | unix.STATX_INO | unix.STATX_BTIME
	var err error
	if f != nil {
		err = unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, mask, &file)
	} else {
		err = unix.Statx(unix.AT_FDCWD, filepath.Join(bucket, object), 0, mask, &file)
	}
	if err != nil || file.Mode&unix.S_IFMT != unix.S_IFREG {
		return object
	}
	born := file.Btime.Sec*1e9 + int64(file.Btime.Nsec) // 0 where the file system does not know it
	return filepath.Join(object, fmt.Sprintf("%s%x-%x", ofFile, file.Ino, born))
}

// latest gives the place of the file that was the last to get attributes at a path.
func (d sideDirectory) latest(bucket, object string) string {
	result, newest := "", int64(0)
	for _, place := range d.places(bucket, object) {
		info, err := os.Stat(filepath.Join(d.root, bucket, place))
		if err == nil && info.ModTime().UnixNano() > newest {
			result, newest = place, info.ModTime().UnixNano()
		}
	}
	return result
}

// places lists those of all files that were at a path.
func (d sideDirectory) places(bucket, object string) []string {
	entries, _ := os.ReadDir(filepath.Join(d.root, bucket, object)) // none is none
	var result []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ofFile) {
			result = append(result, filepath.Join(object, entry.Name()))
		}
	}
	return result
}

// forget removes the attributes of files that were at a path, and are no more.
func (d sideDirectory) forget(bucket, object string) {
	places := d.places(bucket, object)
	if len(places) == 0 {
		return
	}
	d.written.mutex.Lock()
	d.written.forgetRenamed()
	d.written.mutex.Unlock()
	current := d.place(nil, bucket, object)
	for _, place := range places {
		if place != current && !d.written.has(filepath.Join(bucket, place)) {
			_ = d.SideCar.DeleteAttributes(bucket, place) // what is left is never read
		}
	}
}

// is tells whether the attributes at the place are those of a file with this name.
func (b *beingRenamed) is(place, name string) bool {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.names[place] == name
}

func (b *beingRenamed) add(place, name string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if len(b.names) >= mostBeingRenamed {
		b.forgetRenamed()
	}
	b.names[place] = name
}

func (b *beingRenamed) has(place string) bool {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	_, known := b.names[place]
	return known
}

// forgetRenamed is called with the mutex locked.
func (b *beingRenamed) forgetRenamed() {
	for place, name := range b.names {
		if _, err := os.Stat(name); err != nil {
			delete(b.names, place)
		}
	}
}
