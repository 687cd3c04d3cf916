package verify

import (
	"errors"
	"math"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestASpillGivesBackEachBucketInOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		s, err := newSpill(dir, sizes{buckets: rapid.IntRange(1, 9).Draw(t, "buckets"), block: rapid.IntRange(tupleSize, 5*tupleSize).Draw(t, "block")})
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		want := map[int][]tuple{}
		for i := range rapid.IntRange(0, 200).Draw(t, "tuples") {
			one := tuple{
				offset: rapid.Int64().Draw(t, "offset"), version: int64(i), aggregate: digest{rapid.Uint64().Draw(t, "digest"), 1},
				partition: rapid.Int32().Draw(t, "partition"), topic: rapid.Uint16().Draw(t, "topic"), flags: rapid.Uint8().Draw(t, "flags"),
			}
			copy(one.id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
			hash := rapid.Uint64().Draw(t, "hash")
			if err := s.add(hash, &one); err != nil {
				t.Fatal(err)
			}
			n := int(hash % uint64(len(s.buckets)))
			want[n] = append(want[n], one)
		}
		if err := s.seal(); err != nil {
			t.Fatal(err)
		}
		var got []tuple
		for n := range s.buckets {
			if got, err = s.load(n, got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(append([]tuple{}, want[n]...), append([]tuple{}, got...), cmp.AllowUnexported(tuple{})); diff != "" {
				t.Fatalf("bucket %d (-added +loaded):\n%s", n, diff)
			}
		}
	})
}

func TestAFullDiskIsSaidInSoManyWords(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip("this system has no /dev/full")
	}
	s := openSpill(full, "/somewhere", sizes{buckets: 1, block: tupleSize})
	defer s.close()
	err = s.add(0, &tuple{})
	if err == nil {
		err = s.seal()
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "/somewhere") || !strings.Contains(err.Error(), "another directory") {
		t.Errorf("got %v, want what to do about a full disk", err)
	}
}

func TestTooLittleSpaceIsRefusedBeforeAnythingIsRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, known := freeBytes(dir); !known {
		t.Skip("this system does not tell its free space")
	}
	if err := checkSpace(dir, 1000, 1000); err != nil {
		t.Errorf("a thousand events: %v", err)
	}
	err := checkSpace(dir, math.MaxInt64/1000, math.MaxInt64/1000)
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want an error that names %s", err, dir)
	}
}

func TestBucketsStaySmallAndTheirBlocksToo(t *testing.T) {
	t.Parallel()
	for _, events := range []int64{0, 1, 1_000, 1_000_000, 10_000_000, 1_000_000_000} {
		s := sizesFor(events)
		if s.block < tupleSize || s.buckets*s.block > 16<<20 {
			t.Errorf("%d events: %d buckets with blocks of %d bytes, want 16 MiB in all at most", events, s.buckets, s.block)
		}
		if perBucket := events / int64(s.buckets); perBucket > 20_000 && s.buckets < maxBuckets {
			t.Errorf("%d events: %d in a bucket", events, perBucket)
		}
	}
}
