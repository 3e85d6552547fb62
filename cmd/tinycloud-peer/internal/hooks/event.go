package hooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/capstore"
)

// event is a change as clients see it.
type event struct {
	Type       string `json:"type"`
	ID         string `json:"id"`
	Space      string `json:"space"`
	Service    string `json:"service"`
	Ability    string `json:"ability"`
	Path       string `json:"path"`
	Actor      string `json:"actor"`
	Epoch      string `json:"epoch"`
	EventIndex int    `json:"eventIndex"`
	Timestamp  string `json:"timestamp"`
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00" // RFC 3339 with milliseconds

func formatTime(t time.Time) string { return t.UTC().Format(timeFormat) }

// eventID names a change: the CID of its epoch and its index there.
func eventID(c capstore.Change) string { return c.Epoch.EpochID() + ":" + strconv.Itoa(c.Index) }

// maxIndex bounds the operations of an epoch.
const maxIndex = 1 << 24

// parseEventID reads what eventID wrote.
func parseEventID(text string) (epoch tinycloud.Hash, index int, ok bool) {
	cid, number, found := strings.Cut(text, ":")
	if !found || len(text) > 128 {
		return epoch, 0, false
	}
	epoch, err := tinycloud.ParseCID(cid)
	if err != nil || epoch.EpochID() != cid {
		return tinycloud.Hash{}, 0, false
	}
	index, err = strconv.Atoi(number)
	if err != nil || index < 0 || index > maxIndex || strconv.Itoa(index) != number {
		return tinycloud.Hash{}, 0, false
	}
	return epoch, index, true
}

// encode returns the JSON of a change, on one line.
func encode(c capstore.Change) []byte {
	return encodeJSON(event{
		Type: "write", ID: eventID(c), Space: c.Space.String(), Service: c.Service, Ability: c.Ability, Path: c.Key,
		Actor: string(c.Actor), Epoch: c.Epoch.EpochID(), EventIndex: c.Index, Timestamp: formatTime(c.At),
	})
}

// encodeJSON writes text as it is, without Go's escapes for HTML. The values it is given always encode.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// frame returns a change as a stream carries it.
func frame(c capstore.Change) []byte {
	return fmt.Appendf(nil, "event: write\nid: %s\ndata: %s\n\n", eventID(c), encode(c))
}
