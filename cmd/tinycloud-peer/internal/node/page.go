package node

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/cmd/tinycloud-peer/internal/page"
)

// LinkView is a link by which one browser logs in to the page.
type LinkView struct {
	URL     string    `json:"url"`
	Expires time.Time `json:"expires"`
}

// listenPage opens the listener of the page. A port that nobody asked for by name gives way to whoever has it.
func (n *Node) listenPage() (err error) {
	p := n.cfg.Page
	if !p.On {
		return nil
	}
	n.pageOn, err = listenTCP(p.Address.String(), p.Port)
	if errors.Is(err, syscall.EADDRINUSE) && !n.o.PagePortAsked {
		n.log.Warn("the port of the page is taken, it is at another: set admin.port", "error", err)
		n.pageOn, err = listenTCP(p.Address.String(), 0)
	}
	if err != nil {
		return fmt.Errorf("admin.address, admin.port: %w", err)
	}
	if !p.Address.IsLoopback() {
		n.log.Warn("the page speaks plain HTTP, and admin.address is not of this machine alone: whoever is on the way reads along")
	}
	_, port, err := net.SplitHostPort(n.pageOn.Addr().String())
	n.page = page.New(page.Options{Admin: n.adminHandler(), Address: p.Address, Port: port, Log: n.log.With("part", "page")})
	return err
}

// PageURL is where the operator's web page is, "" for nowhere.
func (n *Node) PageURL() string {
	if n.pageOn == nil {
		return ""
	}
	a, ok := n.pageOn.Addr().(*net.TCPAddr)
	if ok && a.IP.IsUnspecified() {
		return fmt.Sprintf("http://localhost:%d/", a.Port)
	}
	return "http://" + n.pageOn.Addr().String() + "/"
}

// operatorHandler is the admin API with what the page itself may not ask for.
func (n *Node) operatorHandler() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/", n.adminHandler())
	mux.HandleFunc("POST /admin/page", answer(n.adminLink))
	return mux
}

// adminLink makes a link. The code is in its fragment, which browsers send to nobody.
func (n *Node) adminLink(r *http.Request) (int, any, error) {
	if n.page == nil {
		return 0, nil, fmt.Errorf("admin.port is false, so there is no page: %w", tinycloud.ErrNotFound)
	}
	code, expires := n.page.Code()
	n.log.InfoContext(r.Context(), "made a link to the page", "expires", expires)
	return http.StatusOK, LinkView{URL: n.PageURL() + "#code=" + code, Expires: expires}, nil
}
