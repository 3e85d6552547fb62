// Package page is the web page of a node's operator: static files that are part of the program, who may see what is behind
// them, and the way from there to the admin API, which is that of package node.
//
// It listens where the operator says, apart from the API of apps, and trusts nobody for that: other programs and users of
// the machine, and sites that a browser on it shows, reach it too. So a request has to name this machine as its host, which
// a name that an attacker's DNS leads here does not. Who logs in shows a code that the command line made, once and within
// minutes. He gets a cookie that no script reads, and a token that only scripts of this origin can have, for browsers send
// cookies to every port of a machine: a request has both. What changes something is refused when another site asks for it.
// The secret of the admin API never comes here.
package page
