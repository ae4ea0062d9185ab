; out = softmax(q @ k.T / sqrt(D)) @ v for one head, as the compiler would do it: int8 products, float32 between them.
;
;   llmcc run examples/asm/attention.s --input q=q.npy --input k=k.npy --input v=v.npy --output out=out.npy
;
; q, k and v are quantized row by row to int8 with scales sq, sk, sv. With p = softmax(s):
;   s   = (float32(qi @ ki.T) * (sq * float32(1/sqrt(D)))) * sk
;   pi, sp = the rows of p * sv, quantized: v's scales are folded in first, since one product needs one scale per row
;   out = float32(pi @ vi) * sp
.chip "edge"
.equ S=48, D=64                         ; positions, head size
.equ ROWS=S, COLS=S                     ; for softmax.inc

.entry name=main, pc=main
.input name=q, shape=[S, D], dtype=float32
.input name=k, shape=[S, D], dtype=float32
.input name=v, shape=[S, D], dtype=float32
.output name=out, shape=[S, D], dtype=float32

.buffer name=q_f32, space=sram, bytes=S*D*4
.buffer name=k_f32, space=sram, bytes=S*D*4
.buffer name=v_f32, space=sram, bytes=S*D*4
.buffer name=q_i8, space=sram, bytes=S*D
.buffer name=k_i8, space=sram, bytes=S*D
.buffer name=v_i8, space=sram, bytes=S*D
.buffer name=sq, space=sram, bytes=S*4
.buffer name=sk, space=sram, bytes=S*4
.buffer name=sv, space=sram, bytes=S*4
.buffer name=scores, space=sram, bytes=S*S*4
.buffer name=p_i8, space=sram, bytes=S*S
.buffer name=sp, space=sram, bytes=S*4
.buffer name=maxima, space=sram, bytes=S*4
.buffer name=totals, space=sram, bytes=S*4
.buffer name=qk, space=acc, bytes=S*S*4
.buffer name=pv, space=acc, bytes=S*D*4

main:
.equ FROM=v1, QF=v2, KF=v3, VF=v4
  vset v=FROM, space=dram, region=in, dtype=f32, base=q, rs=D
  vset v=QF, space=sram, dtype=f32, base=q_f32, rs=D
  lda d=QF, a=FROM, rows=S, cols=D
  vset v=FROM, space=dram, region=in, dtype=f32, base=k, rs=D
  vset v=KF, space=sram, dtype=f32, base=k_f32, rs=D
  lda d=KF, a=FROM, rows=S, cols=D
  vset v=FROM, space=dram, region=in, dtype=f32, base=v, rs=D
  vset v=VF, space=sram, dtype=f32, base=v_f32, rs=D
  lda d=VF, a=FROM, rows=S, cols=D

; quantize each row; the counts let the first begin while the others are still loading
.equ Q=v5, K=v6, V=v7, SQ=v8, SK=v9, SV=v10
  vset v=Q, space=sram, dtype=i8, base=q_i8, rs=D
  vset v=SQ, space=sram, dtype=f32, base=sq, rs=1, cs=0
  vqd d=Q, s=SQ, a=QF, rows=S, cols=D @ lda<=2
  vset v=K, space=sram, dtype=i8, base=k_i8, rs=D
  vset v=SK, space=sram, dtype=f32, base=sk, rs=1, cs=0
  vqd d=K, s=SK, a=KF, rows=S, cols=D @ lda<=1
  vset v=V, space=sram, dtype=i8, base=v_i8, rs=D
  vset v=SV, space=sram, dtype=f32, base=sv, rs=1, cs=0
  vqd d=V, s=SV, a=VF, rows=S, cols=D @ lda<=0

; s, and its row maxima on the way out
.equ QK=v11, SQ_ROW=v12, SK_ROW=v13, X=v14, TOP=v15
  vset v=QK, space=acc, dtype=i32, base=qk, rs=S
  mm c=QK, a=Q, w=K, m=S, n=S, k=D, wt @ vec<=1                 ; v may still be in the making
  vset v=SQ_ROW, space=sram, dtype=f32, base=sq
  vop f=mul, d=SQ_ROW, a=SQ_ROW, rows=1, cols=S, imm=1/sqrt(D)
  vset v=SK_ROW, space=sram, dtype=f32, base=sk                 ; k's scales belong to the columns of s
  vset v=X, space=sram, dtype=f32, base=scores, rs=S
  vset v=TOP, space=sram, dtype=f32, base=maxima, rs=1, cs=0
  vaff d=X, a=QK, rs=SQ, cs=SK_ROW, tap=TOP, red=max, rows=S, cols=S @ mxu<=0

; e = exp(s - max), r = 1 / sum(e)
.equ SUM=v16, SUM_ROW=v17
  vset v=SUM, space=sram, dtype=f32, base=totals, rs=1, cs=0
  vset v=SUM_ROW, space=sram, dtype=f32, base=totals
.include "softmax.inc"

; quantize the rows of (e * r) * sv, multiply by v, scale back
.equ P=v18, SP=v19, SV_ROW=v20, PV=v21, OUT=v22, TO=v23
  vset v=P, space=sram, dtype=i8, base=p_i8, rs=S
  vset v=SP, space=sram, dtype=f32, base=sp, rs=1, cs=0
  vset v=SV_ROW, space=sram, dtype=f32, base=sv
  vqd d=P, s=SP, a=X, rs=SUM, cs=SV_ROW, rows=S, cols=S @ act<=0
  vset v=PV, space=acc, dtype=i32, base=pv, rs=D
  mm c=PV, a=P, w=V, m=S, n=D, k=S @ vec<=0
  vset v=OUT, space=sram, dtype=f32, base=q_f32, rs=D           ; q's room is free again
  vaff d=OUT, a=PV, rs=SP, rows=S, cols=D @ mxu<=0
  vset v=TO, space=dram, region=out, dtype=f32, base=out, rs=D
  sto d=TO, a=OUT, rows=S, cols=D @ vec<=0
  halt
