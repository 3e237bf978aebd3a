// The embedded S3 of Moorage: versitygw's S3 API and its POSIX backend, on one Unix socket.
//
// Every account of Moorage is an account here. Its access key is its id, and its secret is derived from the master key
// in the environment variable MOORAGE_S3_KEY, so none is stored; a bucket belongs to the account that made it. Who may
// do what is decided by the gateway, which signs what it has allowed for the account anew.
package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/middlewares"
	"golang.org/x/sys/unix"
)

const (
	keyVariable  = "MOORAGE_S3_KEY"
	region       = "us-east-1"
	rootAccount  = "moorage"
	mostRequests = 16384    // the gateway bounds them before; more are answered SlowDown
	mostParts    = 10_000   // as in S3, which also bounds the source of a copy
	mostCopied   = 5 << 30  // bytes
	bufferBytes  = 64 << 10 // of each upload and download
	privateDir   = 0o700
	privateFile  = 0o600
)

func init() {
	runtime.LockOSThread() // the main thread lasts, and the signal at the parent's death is bound to a thread
}

func main() {
	logToStderr()
	if err := run(); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

func run() error {
	socket := flag.String("socket", "", "path of the Unix socket to listen on")
	root := flag.String("root", "", "directory of the buckets")
	versions := flag.String("versions", "", "directory of objects' earlier versions")
	sidecar := flag.String("sidecar", "", "directory of metadata, used where files have no extended attributes")
	account := flag.String("account", "", "account that owns the buckets that were there before")
	flag.Parse()
	if flag.NArg() > 0 || *socket == "" || *root == "" || *versions == "" || *sidecar == "" || !isAccountID(*account) {
		flag.Usage()
		return errors.New("all options are needed, and the account has 12 digits")
	}
	master, err := hex.DecodeString(os.Getenv(keyVariable))
	if err != nil || len(master) < 32 {
		return fmt.Errorf("%s must hold a key of at least 32 bytes in hexadecimal digits", keyVariable)
	}
	os.Unsetenv(keyVariable)
	if err := dieWithParent(); err != nil {
		return err
	}
	syscall.Umask(0o077)
	debug.SetGCPercent(50)
	debug.SetMaxThreads(2 * mostRequests) // each request may wait for the disk

	for _, path := range []*string{socket, root, versions, sidecar} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	store, err := openStore(*root, *versions, *sidecar, *account)
	if err != nil {
		return err
	}
	options := posix.PosixOpts{
		VersioningDir: *versions,
		// An upload counts for as long as its client takes to send it. With fewer than there can be requests, clients
		// that send nothing would keep all others out.
		Concurrency:         mostRequests,
		CopyObjectThreshold: mostCopied,
		IOBufferSize:        bufferBytes,
		ForceNoTmpFile:      true, // so that all that a crash leaves is in one directory of each bucket
		ForceNoObjLockFile:  true, // no other process writes here
	}
	options.SetNewDirPerm(privateDir)
	options.SetNewFilePerm(privateFile)
	backend, err := posix.New(*root, store.metadata, options)
	if err != nil {
		return err
	}
	accounts, writers := accounts{master: master}, newWriters()
	// Without WithAdminServer and WithWebUI, neither the admin API nor the web interface exists.
	server, err := s3api.New(
		answers{
			Backend:   keys{buckets{backend, writers}},
			store:     store,
			writers:   writers,
			deletions: new(sync.Map),
		},
		middlewares.RootUserConfig{Access: rootAccount, Secret: accounts.secret(rootAccount)},
		region, accounts, nil, nil, nil, nil,
		s3api.WithConcurrencyLimiter(mostRequests, mostRequests),
		s3api.WithMpMaxParts(mostParts),
		s3api.WithSocketPerm(privateFile),
		s3api.WithDisableACL(),
		s3api.WithMiddleware("/", amend),
		s3api.WithKeepAlive(),
		s3api.WithQuiet(),
	)
	if err != nil {
		return err
	}
	return serve(server, backend, store, *socket)
}

// serve answers requests until SIGTERM or SIGINT, and lets those finish that it has begun to answer.
func serve(server *s3api.S3ApiServer, backend *posix.Posix, store *store, socket string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	ended := make(chan error, 1)
	go func() { ended <- server.ServeMultiPort([]string{socket}) }()
	select {
	case err := <-ended:
		return fmt.Errorf("cannot listen on %s: %w", socket, err)
	case <-signals:
	}
	if err := server.ShutDown(); err != nil {
		return fmt.Errorf("requests are cut off: %w", err)
	}
	backend.Shutdown()
	return store.close()
}

// dieWithParent has the kernel kill this process when the one that started it ends.
func dieWithParent() error {
	parent := os.Getppid()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	if os.Getppid() != parent { // it died before, and cannot send the signal any more
		return errors.New("the parent process has ended")
	}
	return nil
}
