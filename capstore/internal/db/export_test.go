package db

import "github.com/go-sql-driver/mysql"

func (d Dialect) SQL(i Insert) string { return d.sql(i, 1) }

func (d Dialect) Text(query string) string { return d.text(query) }

func MySQLConfig(dsn string) (*mysql.Config, error) { return mysqlConfig(dsn) }

// AwaitCheckpoint waits for the checkpoint that is made beside the writer, if one is.
func AwaitCheckpoint(c *Conn) {
	if c.bulk.done != nil {
		<-c.bulk.done
	}
}

// ListedTexts are the texts of an argument that is a list of them.
func ListedTexts(arg any) []string { return arg.(listed).of.([]string) }
