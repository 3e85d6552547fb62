// Package certs has the certificates of a node: those of files, or of an ACME server. It sends plain HTTP on to HTTPS.
package certs
