// Package token is one form for the signed tokens of both formats, UCAN and CACAO: who grants, does or ends
// what, and until when. What a token is worth is not decided here, but in judge.
package token
