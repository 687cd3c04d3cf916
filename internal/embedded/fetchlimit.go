package embedded

import (
	"math"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// minPartitionBytes is the least that a fetch may ask for of one partition.
const minPartitionBytes = 64 << 10

// boundFetches keeps a fetch below its own limit. When a fetch runs into
// MaxBytes in the middle of a partition, kfake leaves out which of that
// partition's transactions were aborted, and a read_committed client then
// shows aborted records as if they were committed. So the limit of the whole
// is turned into limits of the partitions, which kfake handles right.
func boundFetches(c *kfake.Cluster) {
	c.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		req, ok := r.(*kmsg.FetchRequest)
		if !ok {
			return nil, nil, false
		}
		asked := 0
		for i := range req.Topics {
			asked += len(req.Topics[i].Partitions)
		}
		if asked > 0 && req.MaxBytes != math.MaxInt32 {
			share := max(req.MaxBytes/int32(asked), minPartitionBytes)
			for i := range req.Topics {
				for j := range req.Topics[i].Partitions {
					p := &req.Topics[i].Partitions[j]
					p.PartitionMaxBytes = min(p.PartitionMaxBytes, share)
				}
			}
		}
		req.MaxBytes = math.MaxInt32
		return nil, nil, false
	})
}
