package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"golang.org/x/sys/unix"
)

const (
	stateFile     = ".moorage-s3" // in the root: absent before the first start
	stateRunning  = "running\n"
	stateStopped  = "stopped\n"
	claimedSuffix = ".inprogress" // of an upload that is being completed
)

var (
	// What the server of earlier releases, rclone, left of uploads that were cut off.
	rcloneLeftover = regexp.MustCompile(`^\.rclone_temp_(put|multipart)_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	// The name of a file that the POSIX backend is writing: SHA-256 of the key, and a random number.
	beingWritten = regexp.MustCompile(`^[0-9a-f]{64}\.[0-9]+$`)
)

// store is the directory of the buckets, which is the current directory, and what belongs to it.
type store struct {
	versions   string
	metadata   meta.MetadataStorer
	completing *completing
}

// openStore removes what a crash has left, and gives buckets without an owner to an account: those that the server of
// earlier releases made, or that were copied into the root.
func openStore(root, versions, sidecar, account string) (*store, error) {
	for _, directory := range []string{root, versions} {
		if err := os.MkdirAll(directory, privateDir); err != nil {
			return nil, err
		}
	}
	if err := os.Chdir(root); err != nil {
		return nil, err
	}
	completing := new(completing)
	metadata, err := openMetadata(sidecar, completing)
	if err != nil {
		return nil, err
	}
	s := &store{versions: versions, metadata: metadata, completing: completing}
	state, err := os.ReadFile(stateFile)
	isFirst := errors.Is(err, fs.ErrNotExist)
	if err != nil && !isFirst {
		return nil, err
	}
	buckets, err := directories(".")
	if err != nil {
		return nil, err
	}
	for _, bucket := range buckets {
		if string(state) != stateStopped {
			if err := s.clean(bucket); err != nil {
				return nil, err
			}
		}
		if err := s.adopt(bucket, account, isFirst); err != nil {
			return nil, fmt.Errorf("the bucket %s gets no owner: %w", bucket, err)
		}
	}
	return s, os.WriteFile(stateFile, []byte(stateRunning), privateFile)
}

// close says that nothing was cut off.
func (s *store) close() error {
	return os.WriteFile(stateFile, []byte(stateStopped), privateFile)
}

// adopt gives a bucket without an owner to an account. After the first start an empty one was being made when the
// program was killed, so nobody was told that it exists, and it is removed.
func (s *store) adopt(bucket, account string, isFirst bool) error {
	_, err := s.metadata.RetrieveAttribute(nil, bucket, "", aclAttribute)
	if errors.Is(err, meta.ErrNoSuchKey) {
		if !isFirst && os.Remove(bucket) == nil {
			return nil
		}
		acl, err := json.Marshal(auth.ACL{Owner: account})
		if err != nil {
			return err
		}
		if err := s.metadata.StoreAttribute(nil, bucket, "", aclAttribute, acl); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	_, err = s.metadata.RetrieveAttribute(nil, bucket, "", ownershipAttribute)
	if errors.Is(err, meta.ErrNoSuchKey) {
		enforced := []byte(types.ObjectOwnershipBucketOwnerEnforced)
		return s.metadata.StoreAttribute(nil, bucket, "", ownershipAttribute, enforced)
	}
	return err
}

// clean removes what was being written to a bucket when the program was killed: nobody was told that it exists.
func (s *store) clean(bucket string) error {
	if _, err := s.prune(bucket, ""); err != nil {
		return err
	}
	for _, parent := range []string{bucket, filepath.Join(s.versions, bucket)} {
		if err := removeFiles(filepath.Join(parent, posix.MetaTmpDir), func(string) bool { return true }); err != nil {
			return err
		}
	}
	keys, err := directories(filepath.Join(bucket, posix.MetaTmpMultipartDir))
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := s.releaseUploads(bucket, filepath.Join(posix.MetaTmpMultipartDir, key)); err != nil {
			return err
		}
	}
	return nil
}

// releaseUploads makes uploads of one key as they were before they were being completed, or given a part.
func (s *store) releaseUploads(bucket, directory string) error {
	uploads, err := directories(filepath.Join(bucket, directory))
	if err != nil {
		return err
	}
	for _, upload := range uploads {
		id, _, _ := strings.Cut(upload, ".")
		from, to := filepath.Join(directory, upload), filepath.Join(directory, id)
		if strings.HasSuffix(upload, claimedSuffix) {
			if err := os.Rename(filepath.Join(bucket, from), filepath.Join(bucket, to)); err != nil {
				return err
			}
			if err := s.metadata.RenameObject(bucket, from, to); err != nil {
				return err
			}
		}
	}
	if err := removeFiles(filepath.Join(bucket, directory), beingWritten.MatchString); err != nil {
		return err
	}
	if len(uploads) > 0 {
		return nil
	}
	if err := os.Remove(filepath.Join(bucket, directory)); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}

// prune removes what is no object from a directory of a bucket, and says whether nothing is left in it: directories
// that were made for an object which did not come, and what rclone left.
func (s *store) prune(bucket, directory string) (isEmpty bool, err error) {
	entries, err := os.ReadDir(filepath.Join(bucket, directory))
	if err != nil {
		return false, err
	}
	left := len(entries)
	for _, entry := range entries {
		name := filepath.Join(directory, entry.Name())
		isGone := false
		switch {
		case name == posix.MetaTmpDir:
			continue
		case entry.IsDir():
			if isGone, err = s.prune(bucket, name); err != nil {
				return false, err
			}
			if isGone {
				_, err := s.metadata.RetrieveAttribute(nil, bucket, name, etagAttribute)
				isGone = errors.Is(err, meta.ErrNoSuchKey) // else it is an object with a key that ends in a slash
			}
		default:
			isGone = rcloneLeftover.MatchString(entry.Name())
		}
		if isGone {
			if err := os.Remove(filepath.Join(bucket, name)); err != nil {
				return false, err
			}
			left--
		}
	}
	return left == 0, nil
}

// directories lists those in a directory, which may be missing, without hidden ones.
func directories(parent string) ([]string, error) {
	entries, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") {
			names = append(names, entry.Name())
		}
	}
	return names, err
}

// removeFiles removes those in a directory, which may be missing, whose name is chosen.
func removeFiles(directory string, isChosen func(name string) bool) error {
	entries, err := os.ReadDir(directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if !entry.IsDir() && isChosen(entry.Name()) {
			if err := os.Remove(filepath.Join(directory, entry.Name())); err != nil {
				return err
			}
		}
	}
	return err
}
