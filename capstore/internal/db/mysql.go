package db

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// openMySQL makes a pool of a mysql:// URL. Its query may hold the parameters of MySQL's own URLs (ssl-mode,
// ssl-ca, socket) and those of the Go driver. Several statements may be sent at once to one that writes.
func openMySQL(dsn string, writes bool) (*sql.DB, error) {
	cfg, err := mysqlConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("mysql URL: %w", err)
	}
	cfg.MultiStatements, cfg.InterpolateParams = writes, writes
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("mysql URL: %w", err)
	}
	return sql.OpenDB(connector), nil
}

func mysqlConfig(dsn string) (*mysql.Config, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return nil, errors.New("not a URL") // the error repeats the password
	}
	query := u.Query()
	own := map[string]string{}
	for _, name := range []string{"ssl-mode", "sslmode", "ssl-ca", "sslca", "socket", "charset", "statement-cache-capacity"} {
		if v := query.Get(name); v != "" {
			own[strings.ReplaceAll(name, "-", "")] = v
		}
		query.Del(name)
	}
	cfg, err := mysql.ParseDSN("/?" + query.Encode())
	if err != nil {
		return nil, err
	}
	cfg.TLS = nil // made again, by its name, for the host that follows
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	cfg.DBName = strings.TrimPrefix(u.Path, "/")
	cfg.Net, cfg.Addr = "tcp", net.JoinHostPort(u.Hostname(), "3306")
	if u.Port() != "" {
		cfg.Addr = net.JoinHostPort(u.Hostname(), u.Port())
	}
	if own["socket"] != "" {
		cfg.Net, cfg.Addr = "unix", own["socket"]
	}
	if err := secure(cfg, u.Hostname(), own["sslmode"], own["sslca"]); err != nil {
		return nil, err
	}
	cfg.Logger = &mysql.NopLogger{}
	cfg.ParseTime = true       // of the table of migrations; ours hold numbers
	cfg.ClientFoundRows = true // an update that changes nothing has found its row
	cfg.RejectReadOnly = true  // after a failover the old primary is not the place to write
	cfg.InterpolateParams = false
	if cfg.Collation == "" {
		cfg.Collation = "utf8mb4_bin"
	}
	if cfg.Timeout == 0 || cfg.Timeout > startTimeout {
		cfg.Timeout = dialTimeout
	}
	d := dialer()
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
		defer cancel()
		return d.DialContext(ctx, network, addr)
	}
	return cfg, nil
}

// secure sets TLS as MySQL's ssl-mode says; without one the driver's own tls parameter holds. VERIFY_CA checks the
// host's name too.
func secure(cfg *mysql.Config, host, mode, ca string) error {
	switch strings.ToUpper(strings.ReplaceAll(mode, "-", "_")) {
	case "":
		if ca == "" {
			return nil
		}
		mode = "VERIFY_CA"
	case "DISABLED":
		cfg.TLSConfig, cfg.TLS = "", nil
		return nil
	case "PREFERRED":
		cfg.TLSConfig = "preferred"
		return nil
	case "REQUIRED":
		cfg.TLSConfig = "skip-verify"
		return nil
	case "VERIFY_CA", "VERIFY_IDENTITY":
	default:
		return fmt.Errorf("ssl-mode %q is not DISABLED, PREFERRED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY", mode)
	}
	cfg.TLSConfig, cfg.TLS = "", &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if ca == "" {
		return nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return fmt.Errorf("ssl-ca: %w", err)
	}
	cfg.TLS.RootCAs = x509.NewCertPool()
	if !cfg.TLS.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("ssl-ca: %s holds no certificate", ca)
	}
	return nil
}
