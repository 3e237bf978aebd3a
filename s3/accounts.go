package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"regexp"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/s3err"
)

var isAccountID = regexp.MustCompile(`^[0-9]{12}$`).MatchString

// accounts is the IAM service of versitygw: all accounts of Moorage, of which none is stored.
type accounts struct{ master []byte }

func (a accounts) secret(id string) string {
	mac := hmac.New(sha256.New, a.master)
	mac.Write([]byte(id))
	return hex.EncodeToString(mac.Sum(nil))
}

func (a accounts) GetUserAccount(id string) (auth.Account, error) {
	if !isAccountID(id) {
		return auth.Account{}, auth.ErrNoSuchUser
	}
	return auth.Account{Access: id, Secret: a.secret(id), Role: auth.RoleUserPlus}, nil
}

func (a accounts) ResolveAccounts(ids []string) (missing []string, err error) {
	for _, id := range ids {
		if !isAccountID(id) {
			missing = append(missing, id)
		}
	}
	return missing, nil
}

var errNotManaged = s3err.GetAPIError(s3err.ErrAdminMethodNotSupported)

func (accounts) CreateAccount(auth.Account) error                  { return errNotManaged }
func (accounts) UpdateUserAccount(string, auth.MutableProps) error { return errNotManaged }
func (accounts) DeleteUserAccount(string) error                    { return errNotManaged }
func (accounts) ListUserAccounts() ([]auth.Account, error)         { return nil, errNotManaged }
func (accounts) Shutdown() error                                   { return nil }
