// Package locate is how nodes find which of each other's peers is that of a Space: the question that one asks another
// (/tinycloud/where/1), and the names under which the hosts of a Space find each other's nodes. It knows nothing of what the
// Space holds.
package locate
