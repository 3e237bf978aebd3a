package main

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3response"
)

// mostChecksums is how long the checksums of an object's parts may be in all, in bytes: attributes of a file have little
// room. These are 256 parts with CRC32, or 32 with SHA-256. The checksums of more are not kept.
const mostChecksums = 1024

// upload is what is kept of the upload that an object was made by: its id, where its parts end, and their checksums.
type upload struct {
	backend.MpUploadMetadata
	Checksums *checksums `json:"checksums,omitempty"`
}

type checksums struct {
	Algorithm types.ChecksumAlgorithm `json:"algorithm"`
	Type      types.ChecksumType      `json:"type"`
	OfParts   [][]byte                `json:"ofParts"`
}

// unmarshalUpload reads what the backend wrote, or what a packed attribute holds.
func unmarshalUpload(value []byte) (upload, error) {
	var result upload
	if json.Unmarshal(value, &result) == nil {
		return result, nil
	}
	known, err := backend.UnmarshalMpUploadMetadata(value, false)
	return upload{MpUploadMetadata: known}, err
}

// setChecksum sets the members of a reply that are for the checksum of one part, counted from 0, and for its type, where
// it is known. The reply is a pointer to one of several structures, in which these members have the same names.
func (u upload) setChecksum(reply any, part int) {
	if u.Checksums == nil || part < 0 || part >= len(u.Checksums.OfParts) {
		return
	}
	members := reflect.ValueOf(reply).Elem()
	member := members.FieldByName("Checksum" + string(u.Checksums.Algorithm))
	if !member.IsValid() {
		return
	}
	text := base64.StdEncoding.EncodeToString(u.Checksums.OfParts[part])
	member.Set(reflect.ValueOf(&text))
	if kind := members.FieldByName("ChecksumType"); kind.IsValid() {
		kind.Set(reflect.ValueOf(u.Checksums.Type))
	}
}

// completing has the checksums of uploads that are being completed, by the uploads' ids, so that they are written
// together with the object.
type completing struct{ sync.Map }

func (c *completing) of(id string) *checksums {
	kept, _ := c.Load(id)
	known, _ := kept.(*checksums)
	return known
}

// checksumsOf takes the checksums of the parts that an upload is completed with, or nil if they are not known, or too
// long.
func checksumsOf(listed s3response.ListPartsResult, chosen []types.CompletedPart) *checksums {
	result := &checksums{Algorithm: listed.ChecksumAlgorithm, Type: listed.ChecksumType}
	byNumber := make(map[int32]*s3response.Part, len(listed.Parts))
	for i := range listed.Parts {
		byNumber[int32(listed.Parts[i].PartNumber)] = &listed.Parts[i]
	}
	length := 0
	for _, each := range chosen {
		if each.PartNumber == nil || byNumber[*each.PartNumber] == nil {
			return nil
		}
		member := reflect.ValueOf(byNumber[*each.PartNumber]).Elem().FieldByName("Checksum" + string(result.Algorithm))
		if !member.IsValid() || member.IsNil() {
			return nil
		}
		sum, err := base64.StdEncoding.DecodeString(member.Elem().String())
		if length += len(sum); err != nil || length > mostChecksums {
			return nil
		}
		result.OfParts = append(result.OfParts, sum)
	}
	return result
}
