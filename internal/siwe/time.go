package siwe

import (
	"fmt"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
)

// ParseTime reads an RFC 3339 time stamp as wide as the reference does: any one character between date
// and time, any number of fraction digits of which nine count, 'Z' or 'z' or an offset. Second 60
// is accepted at the end of a UTC month without a fraction and means the last nanosecond before the
// next. The result is in UTC. The error is of class [tinycloud.ErrInvalid].
func ParseTime(s string) (time.Time, error) {
	t, ok := parseTime(s)
	if !ok {
		if len(s) > 64 {
			s = s[:64]
		}
		return time.Time{}, fmt.Errorf("time %q: %w", s, tinycloud.ErrInvalid)
	}
	return t, nil
}

const stampHead = "2006-01-02T15:04:05"

func parseTime(s string) (time.Time, bool) {
	if len(s) <= len(stampHead) || len(s) > 256 {
		return time.Time{}, false
	}
	if s[4] != '-' || s[7] != '-' || s[10] < ' ' || s[10] > '~' || s[13] != ':' || s[16] != ':' {
		return time.Time{}, false
	}
	year, ok1 := number(s[0:4], 9999)
	month, ok2 := number(s[5:7], 12)
	day, ok3 := number(s[8:10], 31)
	hour, ok4 := number(s[11:13], 23)
	minute, ok5 := number(s[14:16], 59)
	second, ok6 := number(s[17:19], 60)
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) || month == 0 || day == 0 {
		return time.Time{}, false
	}
	nanos, rest, ok := fraction(s[19:])
	if !ok {
		return time.Time{}, false
	}
	offset, ok := zone(rest)
	if !ok {
		return time.Time{}, false
	}
	leap := second == 60
	if leap {
		second, nanos = 59, nanos+999_999_999
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	if t.Day() != day || t.Month() != time.Month(month) {
		return time.Time{}, false // e.g. 30 February
	}
	t = t.Add(-offset)
	if leap {
		next := t.Add(time.Nanosecond)
		return t, next.Day() == 1 && next.Hour() == 0 && next.Minute() == 0 && next.Second() == 0 && next.Nanosecond() == 0
	}
	return t, true
}

// number reads decimal digits with an upper bound.
func number(s string, limit int) (n int, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, n <= limit
}

// fraction reads "" or "." and at least one digit, and returns nanoseconds.
func fraction(s string) (nanos int, rest string, ok bool) {
	if s == "" || s[0] != '.' {
		return 0, s, true
	}
	unit, i := 100_000_000, 1
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		nanos += int(s[i]-'0') * unit
		unit /= 10
	}
	return nanos, s[i:], i > 1
}

func zone(s string) (time.Duration, bool) {
	if s == "Z" || s == "z" {
		return 0, true
	}
	if len(s) != 6 || s[3] != ':' || (s[0] != '+' && s[0] != '-') {
		return 0, false
	}
	hours, ok1 := number(s[1:3], 23)
	minutes, ok2 := number(s[4:6], 59)
	offset := time.Duration(hours*60+minutes) * time.Minute
	if s[0] == '-' {
		offset = -offset
	}
	return offset, ok1 && ok2
}
