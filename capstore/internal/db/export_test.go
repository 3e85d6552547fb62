package db

import "github.com/go-sql-driver/mysql"

func (d Dialect) SQL(i Insert) (string, error) { return d.sql(i) }

func MySQLConfig(dsn string) (*mysql.Config, error) { return mysqlConfig(dsn) }
