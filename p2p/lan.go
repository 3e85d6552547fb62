package p2p

import (
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/ipv4"
	"golang.org/x/time/rate"
)

const (
	lanNames     = 32 << 10 // answered for at once
	lanPayload   = 1000     // bytes; with the rest it fits one Ethernet frame
	lanPacket    = 9000     // bytes of the longest that is read
	lanRecords   = 64       // questions or answers of one packet
	lanTTL       = 120      // seconds, for caches on the way
	lanPerSecond = 100      // packets read, and answers sent
	lanDomain    = "._udp.local."
)

var lanGroup = net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}

// LAN answers for names on the local network, and asks for them, by multicast
// DNS over IPv4. A question is for the TXT record of <name in base32>._udp.local;
// the answer is an opaque payload. Nothing else about this node is said, nor is
// anything answered that does not name a name. Its methods may be called from
// several goroutines.
type LAN struct {
	conn    *net.UDPConn
	multi   *ipv4.PacketConn
	addrs   func() []ma.Multiaddr
	log     *slog.Logger
	ins     *rate.Limiter
	outs    *rate.Limiter
	running sync.WaitGroup // read

	mu    sync.Mutex
	names map[Name]*lanName // guarded by mu
	ifis  []net.Interface   // guarded by mu; joined ones
}

type lanName struct {
	payload []byte
	found   func(payload []byte)
	expires time.Time
	heard   *rate.Limiter
}

// OpenLAN opens the socket. The caller closes the LAN, before the front. Only
// networks on which the front listens are used.
func (f *Front) OpenLAN() (*LAN, error) {
	ifis := networks(f.host.Addrs())
	if len(ifis) == 0 {
		return nil, fmt.Errorf("multicast dns: the front listens on no IPv4 network: %w", ErrUnreachable)
	}
	conn, err := net.ListenMulticastUDP("udp4", &ifis[0], &lanGroup)
	if err != nil {
		return nil, fmt.Errorf("multicast dns: %w: %w", ErrUnreachable, err)
	}
	l := &LAN{
		conn: conn, multi: ipv4.NewPacketConn(conn), addrs: f.host.Addrs, log: f.log,
		ins: rate.NewLimiter(lanPerSecond, lanPerSecond), outs: rate.NewLimiter(lanPerSecond, lanPerSecond),
		names: map[Name]*lanName{}, ifis: ifis[:1],
	}
	// Several nodes of one machine hear each other.
	if err := errors.Join(l.multi.SetMulticastLoopback(true), l.multi.SetControlMessage(ipv4.FlagInterface, true)); err != nil {
		return nil, errors.Join(fmt.Errorf("multicast dns: %w: %w", ErrUnreachable, err), conn.Close())
	}
	return l, nil
}

// Start hears and answers others from now on. It is called once, before Close.
func (l *LAN) Start() { l.running.Go(l.read) }

// Close closes the socket; no callback runs after it.
func (l *LAN) Close() error {
	err := l.conn.Close()
	l.running.Wait()
	return err
}

// Announce answers for a name with a payload of at most 1,000 bytes, for a
// time, and says so at once. found hears of other payloads under the name,
// asked for or not; whoever knows the name may send one. It must be quick.
func (l *LAN) Announce(name Name, payload []byte, life time.Duration, found func(payload []byte)) error {
	if len(payload) > lanPayload {
		return fmt.Errorf("payload of %d bytes: %w", len(payload), ErrInvalid)
	}
	x := &lanName{
		payload: slices.Clone(payload), found: found, expires: time.Now().Add(life), heard: rate.NewLimiter(1, 16),
	}
	l.mu.Lock()
	for old, y := range l.names {
		if time.Now().After(y.expires) {
			delete(l.names, old)
		}
	}
	if len(l.names) >= lanNames && l.names[name] == nil {
		l.mu.Unlock()
		return fmt.Errorf("%d names: %w", lanNames, ErrBusy)
	}
	l.names[name] = x
	l.mu.Unlock()
	return l.send(lanAnswer(name, x.payload))
}

// Ask asks for a name; found of [LAN.Announce] hears the answers.
func (l *LAN) Ask(name Name) error {
	return l.send(dnsmessage.Message{Questions: []dnsmessage.Question{{
		Name: lanLabel(name), Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET,
	}}})
}

func lanAnswer(name Name, payload []byte) dnsmessage.Message {
	var texts []string
	for chunk := range slices.Chunk(payload, 255) {
		texts = append(texts, string(chunk))
	}
	return dnsmessage.Message{
		Header: dnsmessage.Header{Response: true, Authoritative: true},
		Answers: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: lanLabel(name), Class: dnsmessage.ClassINET, TTL: lanTTL},
			Body:   &dnsmessage.TXTResource{TXT: texts},
		}},
	}
}

// lanLabels is one spelling: DNS ignores case.
var lanLabels = base32.StdEncoding.WithPadding(base32.NoPadding)

func lanLabel(name Name) dnsmessage.Name {
	return dnsmessage.MustNewName(strings.ToLower(lanLabels.EncodeToString(name[:])) + lanDomain) // of 63 bytes
}

func lanNameOf(n dnsmessage.Name) (name Name, ok bool) {
	label, ok := strings.CutSuffix(strings.ToLower(n.String()), lanDomain)
	if !ok {
		return name, false
	}
	b, err := lanLabels.DecodeString(strings.ToUpper(label))
	if err != nil || len(b) != len(name) {
		return name, false
	}
	return Name(b), true
}

// send multicasts on every network on which the front listens.
func (l *LAN) send(m dnsmessage.Message) error {
	b, err := m.Pack()
	if err != nil {
		return fmt.Errorf("multicast dns: %w: %w", ErrInvalid, err)
	}
	ifis := l.interfaces()
	if len(ifis) == 0 {
		return fmt.Errorf("multicast dns: no network: %w", ErrUnreachable)
	}
	sent := false
	var errs []error
	for _, ifi := range ifis {
		_, err := l.multi.WriteTo(b, &ipv4.ControlMessage{IfIndex: ifi.Index}, &lanGroup)
		sent = sent || err == nil
		errs = append(errs, err)
	}
	if sent {
		return nil
	}
	return fmt.Errorf("multicast dns: %w: %w", ErrUnreachable, errors.Join(errs...))
}

// networks are the interfaces that have one of the addresses.
func networks(addrs []ma.Multiaddr) (out []net.Interface) {
	mine := map[string]bool{}
	for _, a := range addrs {
		if ip, err := manet.ToIP(a); err == nil {
			mine[ip.String()] = true
		}
	}
	all, _ := net.Interfaces() // none when it fails
	for _, ifi := range all {
		addrs, _ := ifi.Addrs()
		if ifi.Flags&net.FlagUp != 0 && slices.ContainsFunc(addrs, func(a net.Addr) bool {
			n, ok := a.(*net.IPNet)
			return ok && n.IP.To4() != nil && mine[n.IP.String()]
		}) {
			out = append(out, ifi)
		}
	}
	return out
}

// interfaces joins the group on networks that are new and returns all.
func (l *LAN) interfaces() (now []net.Interface) {
	all := networks(l.addrs())
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ifi := range all {
		if !slices.ContainsFunc(l.ifis, func(x net.Interface) bool { return x.Index == ifi.Index }) {
			if err := l.multi.JoinGroup(&ifi, &lanGroup); err != nil {
				l.log.Debug("no multicast dns", "interface", ifi.Name, "error", err)
				continue
			}
		}
		now = append(now, ifi)
	}
	l.ifis = now
	return now
}

// read answers questions and hears answers until the socket is closed.
func (l *LAN) read() {
	buf := make([]byte, lanPacket)
	for {
		n, _, _, err := l.multi.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || !l.ins.Allow() {
			continue
		}
		asked, heard := parseLAN(buf[:n])
		for _, name := range asked {
			if x := l.name(name); x != nil && l.outs.Allow() {
				if err := l.send(lanAnswer(name, x.payload)); err != nil {
					l.log.Debug("multicast dns", "error", err)
				}
			}
		}
		for _, h := range heard {
			if x := l.name(h.name); x != nil && string(h.payload) != string(x.payload) && x.heard.Allow() {
				x.found(h.payload)
			}
		}
	}
}

func (l *LAN) name(name Name) *lanName {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.names[name]; x != nil && time.Now().Before(x.expires) {
		return x
	}
	return nil
}

type lanHeard struct {
	name    Name
	payload []byte
}

// parseLAN reads what a packet asks or answers about names; other names are
// left out, and of a broken packet what follows.
func parseLAN(b []byte) (asked []Name, heard []lanHeard) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil {
		return nil, nil
	}
	if !h.Response {
		for range lanRecords {
			q, err := p.Question()
			if err != nil {
				return asked, nil
			}
			name, ok := lanNameOf(q.Name)
			if ok && (q.Type == dnsmessage.TypeTXT || q.Type == dnsmessage.TypeALL) && !slices.Contains(asked, name) {
				asked = append(asked, name)
			}
		}
		return asked, nil
	}
	if p.SkipAllQuestions() != nil {
		return nil, nil
	}
	for range lanRecords {
		r, err := p.AnswerHeader()
		if err != nil {
			return nil, heard
		}
		name, ok := lanNameOf(r.Name)
		if !ok || r.Type != dnsmessage.TypeTXT {
			if p.SkipAnswer() != nil {
				return nil, heard
			}
			continue
		}
		txt, err := p.TXTResource()
		if err != nil {
			return nil, heard
		}
		if payload := strings.Join(txt.TXT, ""); len(payload) <= lanPayload {
			heard = append(heard, lanHeard{name, []byte(payload)})
		}
	}
	return nil, heard
}
